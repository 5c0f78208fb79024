"""hit@k, hierarchical precision, generalised zero-shot, intervals: arrays in, figures out.

`scores` is float [n, m]: n pictures against m candidates, higher is better. Per-picture results are arrays,
so that means, intervals and paired comparisons are all made from the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
RESAMPLES = 1000


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def top_k(scores: Scores, k: int) -> Ints:
    """Indices [n, min(k, m)] of the highest scores, best first; ties in candidate order."""
    k = min(k, scores.shape[1])
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)


def ranks(scores: Scores, true: Ints) -> Ints:
    """How many candidates stand at or above each picture's true one, itself not counted [n]: ties count
    against us. true: index of the true candidate [n]."""
    own = scores[np.arange(len(true)), true][:, None]
    return (scores >= own).sum(axis=1).astype(np.int64) - 1


def hits(scores: Scores, true: Ints, k: int) -> Floats:
    """hit@k per picture: 1 if the true candidate is among the k best, also with every tie lost; a
    candidate that the system cannot name (−inf) is never hit."""
    named = np.isfinite(scores[np.arange(len(true)), true])
    return ((ranks(scores, true) < k) & named).astype(np.float64)


def expected_hits(scores: Scores, true: Ints, k: int) -> Floats:
    """hit@k per picture in expectation over a random order of equal scores."""
    own = scores[np.arange(len(true)), true][:, None]
    above = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1)
    return np.clip((k - above) / equal, 0.0, 1.0) * np.isfinite(own[:, 0])


def hierarchical_precision(scores: Scores, correct: Sequence[Ints], true: Ints, k: int) -> Floats:
    """hp@k per picture: |top-k ∩ C_k(label)| / k (Frome et al. 2013, section 4.1 and supplement).

    Args:
        correct: for each label, C_k as indices into the candidates; labels outside them left out.
        true: each picture's label, an index into `correct`.
    """
    best = top_k(scores, k)
    member = np.zeros((len(correct), scores.shape[1]), bool)
    for label, indices in enumerate(correct):
        member[label, indices] = True
    named = np.isfinite(np.take_along_axis(scores, best, axis=1))
    return (member[true[:, None], best] & named).sum(axis=1) / k


def hp_ceiling(correct: Sequence[Ints], true: Ints, k: int, candidates: int) -> float:
    """The best mean hp@k there can be: min(k, |C_k ∩ candidates|, candidates) / k."""
    sizes = np.array([len(c) for c in correct])
    return float((np.minimum(np.minimum(sizes[true], k), candidates) / k).mean())


def hp_chance(correct: Sequence[Ints], true: Ints, k: int, candidates: int) -> float:
    """Mean hp@k of a random order of the candidates: |C_k ∩ candidates| / candidates, over min(k, m)."""
    sizes = np.array([len(c) for c in correct])
    return float((sizes[true] / candidates * min(k, candidates) / k).mean())


def class_mean(per_picture: Floats, true: Ints) -> float:
    """The mean over classes of each class's mean, as the GBU benchmark reports."""
    return float(np.mean([per_picture[true == c].mean() for c in np.unique(true)]))


def tie_groups(vectors: npt.NDArray[np.float32]) -> Ints:
    """A group number for each row [m]; rows that are equal share it."""
    return np.unique(vectors, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def tied(groups: Ints) -> int:
    """How many candidates share their vector with another."""
    return int((np.bincount(groups)[groups] > 1).sum())


def bootstrap(per_picture: Floats, seed: int = 0) -> Interval:
    """The mean with its 95 % percentile interval over resampled pictures."""
    values = np.asarray(per_picture, np.float64)
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    means = _resampled_means(values, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float(values.mean())
    # Summed in another order, equal values may differ in the last bit: an interval holds its own mean.
    return Interval(mean, min(mean, float(low)), max(mean, float(high)))


def paired(a: Floats, b: Floats, seed: int = 0) -> Interval:
    """mean(a − b) with its 95 % interval over the same resampled pictures: above zero means a is above b."""
    return bootstrap(np.asarray(a, np.float64) - np.asarray(b, np.float64), seed)


def _resampled_means(values: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    n = len(values)
    # Equal values are drawn together: a multinomial over the few distinct ones instead of n indices.
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 64:
        drawn = rng.multinomial(n, counts / n, size=RESAMPLES)
        return np.asarray(drawn @ distinct / n, np.float64)
    return np.array([values[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)])


def harmonic(seen: float, unseen: float) -> float:
    """2SU / (S + U), 0 where both are."""
    return 0.0 if seen + unseen == 0 else 2 * seen * unseen / (seen + unseen)


class Calibration(NamedTuple):
    """Per bias (subtracted from seen candidates' scores): accuracy on seen and on unseen pictures."""

    bias: Floats
    seen: Floats
    unseen: Floats

    @property
    def area(self) -> float:
        """Area under the seen-unseen curve (AUSUC, Chao et al. 2016)."""
        order = np.lexsort((-self.seen, self.unseen))
        return float(np.trapezoid(self.seen[order], self.unseen[order]))

    def best_bias(self) -> float:
        """The bias of the highest harmonic mean."""
        scores = [harmonic(float(s), float(u)) for s, u in zip(self.seen, self.unseen, strict=True)]
        return float(self.bias[int(np.argmax(scores))])


def calibration(scores: Scores, true: Ints, is_seen: npt.NDArray[np.bool_], steps: int = 201) -> Calibration:
    """Generalised zero-shot accuracy (hit@1 among all candidates) over biases.

    Args:
        true: index of each picture's candidate [n].
        is_seen: bool [m], which candidates were trained on; pictures are seen where their candidate is.
    """
    best_seen = np.where(is_seen, scores, -np.inf).max(axis=1)
    best_unseen = np.where(is_seen, -np.inf, scores).max(axis=1)
    gap = best_seen - best_unseen  # a seen class wins while the bias is below this
    own = scores[np.arange(len(true)), true]
    seen_picture = is_seen[true]
    right_among = np.where(seen_picture, own >= best_seen, own >= best_unseen)
    finite = gap[np.isfinite(gap)]
    span = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    bias = np.linspace(span[0] - 1e-6, span[1] + 1e-6, steps)
    bias = np.unique(np.append(bias, 0.0))
    wins_seen = gap[None, :] > bias[:, None]
    seen = (wins_seen & right_among & seen_picture).sum(axis=1) / max(1, seen_picture.sum())
    unseen = (~wins_seen & right_among & ~seen_picture).sum(axis=1) / max(1, (~seen_picture).sum())
    return Calibration(bias, seen, unseen)


def map_at_100(
    scores: Scores, relevant: npt.NDArray[np.bool_], reading: str = "by_class", weights: Floats | None = None
) -> float:
    """Chollet 2016's MAP@100: the mean over classes of the mean over k = 1 … 100 of P(k, class), times a
    class weight.

    by_class: P = precision of the class's k highest-scored pictures; by_image: among the pictures whose
    top-k labels contain the class, the share that truly have it, 0 if none.

    Args:
        relevant: bool [n, m], which picture has which class.
    """
    n, m = scores.shape
    weights = np.ones(m) if weights is None else weights
    if reading == "by_class":
        k = min(100, n)
        order = np.argsort(-scores, axis=0, kind="stable")[:k]
        found = np.take_along_axis(relevant, order, axis=0).cumsum(axis=0)
        precision = found / np.arange(1, k + 1)[:, None]
        return float((precision.sum(axis=0) / 100 * weights).mean())
    position = np.empty((n, m), np.int64)
    np.put_along_axis(position, np.argsort(-scores, axis=1, kind="stable"), np.arange(m)[None, :], axis=1)
    total = np.zeros(m)
    for k in range(1, 101):
        listed = position < k
        count = listed.sum(axis=0)
        total += np.where(count > 0, (listed & relevant).sum(axis=0) / np.maximum(count, 1), 0.0)
    return float((total / 100 * weights).mean())
