"""Paired bootstrap over class splits and, within each, over pictures (or draws)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from psdevise.scores import RESAMPLES, Interval

Floats = npt.NDArray[np.float64]


def over_splits(per_split: Sequence[Floats], seed: int = 0) -> Interval:
    """The mean over splits of each split's mean, with its 95 % percentile interval.

    A resample draws as many splits as there are, with replacement, and pictures within each of them anew. The same
    test picture may stand in several splits: that is not modelled. With one split the interval is over pictures alone.

    Args:
        per_split: for each split a value per picture [n_s]; for a paired comparison the differences a − b.
    """
    rng = np.random.default_rng(seed)
    values = [np.asarray(v, np.float64) for v in per_split if len(v)]
    if not values:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(np.mean([v.mean() for v in values]))
    chosen = rng.integers(len(values), size=(RESAMPLES, len(values)))
    drawn = np.empty(chosen.shape)
    for split, value in enumerate(values):
        drawn[chosen == split] = _means(value, int((chosen == split).sum()), rng)
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return Interval(mean, min(mean, float(low)), max(mean, float(high)))


def _means(values: Floats, times: int, rng: np.random.Generator) -> Floats:
    """Means of `times` resamples of the pictures; equal values are drawn together."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(len(values), counts / len(values), size=times)
    return np.asarray(drawn @ distinct / len(values), np.float64)
