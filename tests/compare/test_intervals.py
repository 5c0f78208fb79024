"""The bootstrap over splits and pictures."""

from __future__ import annotations

import numpy as np
import pytest

from psdevise.compare.intervals import over_splits


def test_one_split_is_the_bootstrap_over_pictures() -> None:
    values = np.random.default_rng(0).random(400)
    found = over_splits([values])
    deviation = values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.15)


def test_splits_that_differ_widen_the_interval_beyond_their_pictures() -> None:
    rng = np.random.default_rng(1)
    levels = rng.uniform(0.1, 0.9, 10)
    found = over_splits([(rng.random(2000) < level).astype(float) for level in levels])
    deviation = levels.std() / np.sqrt(10)
    assert (found.high - found.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.2)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(60):
        levels = np.clip(rng.normal(0.4, 0.08, 12), 0, 1)
        found = over_splits([(rng.random(150) < level).astype(float) for level in levels], seed=trial)
        covered += found.low <= 0.4 <= found.high
    assert covered >= 50


def test_nothing_has_no_interval() -> None:
    assert np.isnan(over_splits([]).value)
    same = over_splits([np.ones(5), np.ones(3)])
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
