"""Hubness and "unknown", counted one picture at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from psdevise.compare.measure import COVERAGES, measured
from psdevise.evaluation.evaluate import EvaluationOptions, Scored, Setting
from psdevise.labels.space import LabelSpace
from psdevise.labels.split import Split
from psdevise.systems import Pictures, Scores

SEEN, UNSEEN = ("ant", "bee", "cat", "dog"), ("elk", "fox", "gnu")
CLASSES = SEEN + UNSEEN
BIAS = 0.4
SPACE = LabelSpace(CLASSES, {c: (c,) for c in CLASSES}, {})


def scored(pictures: int = 60) -> Scored:
    """Scores that know something, with a lift for seen classes, as of a model that has trained on them."""
    rng = np.random.default_rng(3)
    true = rng.integers(len(CLASSES), size=pictures)
    matrix = rng.standard_normal((pictures, len(CLASSES))) + 1.5 * np.eye(len(CLASSES))[true]
    matrix[:, : len(SEEN)] += BIAS
    matrix[:, -1] += 1.0  # a hub
    return Scored(CLASSES, true, {"mine": matrix.astype(np.float32)})


class Mine:
    """The name of what was scored."""

    name, variant = "mine", "default"

    def score(self, pictures: Pictures, labels: Sequence[str]) -> Scores:
        raise AssertionError("the scores are there")


def rows_of(found: Scored, bias: dict[str, float]) -> dict[tuple[str, str, int | None], float]:
    """(metric, candidates, k) → value, of what a comparison adds to an evaluation."""
    setting = Setting("drawn", 0, Split("cut", SEEN, UNSEEN), SPACE, None, EvaluationOptions(), bias)
    rows, _ = measured(found, Mine(), setting)
    added = ("hubness", "unknown_auroc", "named_hit")
    return {(r.metric, r.candidates, r.k): float(r.value) for r in rows if r.metric in added and r.value is not None}


def test_hubness_is_the_skewness_of_how_often_a_label_is_nearest() -> None:
    found = scored()
    rows = rows_of(found, {})
    unseen = [i for i in range(len(found.true)) if found.true[i] >= len(SEEN)]
    for candidates, columns in (("unseen", range(len(SEEN), len(CLASSES))), ("seen+unseen", range(len(CLASSES)))):
        counts = dict.fromkeys(columns, 0)
        for i in unseen:
            counts[max(columns, key=lambda c: found.by_system["mine"][i, c])] += 1
        n = np.array(list(counts.values()), np.float64)
        wanted = ((n - n.mean()) ** 3).mean() / ((n - n.mean()) ** 2).mean() ** 1.5
        assert abs(wanted) > 0.1, "else nothing is tested"
        assert rows["hubness", candidates, 1] == pytest.approx(wanted, rel=1e-6)


def test_hubness_of_labels_that_are_nearest_equally_often_is_none() -> None:
    true = np.arange(len(CLASSES))
    found = Scored(CLASSES, true, {"mine": np.eye(len(CLASSES), dtype=np.float32)})
    assert rows_of(found, {})["hubness", "unseen", 1] == 0.0


def test_unknown_is_told_by_the_best_score_among_seen_labels() -> None:
    """AUROC: of all pairs of a seen and an unseen picture, the share where the seen one's best score is higher."""
    found = scored()
    best = found.by_system["mine"][:, : len(SEEN)].astype(np.float64).max(axis=1)
    seen, unseen = best[found.true < len(SEEN)], best[found.true >= len(SEEN)]
    wanted = np.mean([[float(a > b) + 0.5 * float(a == b) for b in unseen] for a in seen])
    assert 0.5 < wanted < 1
    assert rows_of(found, {})["unknown_auroc", "seen+unseen", None] == pytest.approx(wanted)


@pytest.mark.parametrize("bias", [0.0, BIAS, 5.0])
def test_the_named_are_the_pictures_of_highest_best_score_after_the_bias(bias: float) -> None:
    found = scored()
    rows = rows_of(found, {"mine": bias})
    shifted = found.by_system["mine"].astype(np.float64) - bias * (np.arange(len(CLASSES)) < len(SEEN))
    ranked = sorted(range(len(found.true)), key=lambda i: -max(shifted[i]))
    for coverage in COVERAGES:
        named = ranked[: round(coverage * len(ranked))]
        right = [int(shifted[i].argmax()) == found.true[i] for i in named]
        assert rows["named_hit", "seen+unseen", round(100 * coverage)] == pytest.approx(np.mean(right))
