"""hit@k, hierarchical precision, generalised zero-shot, intervals: arrays in, figures out.

`scores` is float [n, m]: n pictures against m candidates, higher is better, −inf what cannot be named.
Per-picture results are arrays, so that means, intervals and paired comparisons are all made from the same.
Equal scores count against us everywhere but in `Places.expected_hits`; call `level` first where candidates share
vectors, because a matrix product may give equal columns scores that differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]
RESAMPLES = 1000
BLOCK = 1 << 23  # scores looked at together where a copy is needed, so that memory stays bounded


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def top_k(scores: Scores, k: int) -> Ints:
    """Indices [n, min(k, m)] of the highest scores, best first; ties in candidate order, NaN last."""
    n, m = scores.shape
    k = min(k, m)
    best = np.empty((n, k), np.int64)
    for rows in _blocks(n, m):
        block = np.where(np.isnan(scores[rows]), -np.inf, scores[rows])
        kth = np.partition(block, m - k, axis=1)[:, m - k, None]
        above, at = block > kth, block == kth
        free = k - above.sum(axis=1, keepdims=True)
        kept = above | (at & (np.cumsum(at, axis=1, dtype=np.int32) <= free))
        found = np.nonzero(kept)[1].reshape(-1, k)
        order = np.argsort(-np.take_along_axis(block, found, axis=1), axis=1, kind="stable")
        best[rows] = np.take_along_axis(found, order, axis=1)
    return best


class Places(NamedTuple):
    """Where each picture's true candidate stands [n]: candidates `above` it, and `equal` to it, itself counted.
    One that the system cannot name stands below any k."""

    above: Ints
    equal: Ints

    def hits(self, k: int) -> Floats:
        """hit@k per picture with every tie lost."""
        return (self.above + self.equal <= k).astype(np.float64)

    def expected_hits(self, k: int) -> Floats:
        """hit@k per picture in expectation over a random order of equal scores."""
        return np.clip((k - self.above) / self.equal, 0.0, 1.0)


def places(scores: Scores, true: Ints) -> Places:
    """true: index of each picture's true candidate [n]."""
    own = scores[np.arange(len(true)), true][:, None]
    named = np.isfinite(own[:, 0])
    above = np.where(named, (scores > own).sum(axis=1), np.iinfo(np.int64).max // 2)
    equal = np.where(named, (scores == own).sum(axis=1), 1)
    return Places(above.astype(np.int64), equal.astype(np.int64))


def hits(scores: Scores, true: Ints, k: int) -> Floats:
    """hit@k per picture: 1 if the true candidate is among the k best, also with every tie lost; a
    candidate that the system cannot name (−inf) is never hit."""
    return places(scores, true).hits(k)


def tie_groups(vectors: npt.NDArray[np.float32]) -> Ints:
    """A group number for each row [m]; rows that are equal share it."""
    rows = np.ascontiguousarray(vectors + np.float32(0))  # −0 becomes 0: equal rows have equal bytes
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).reshape(-1)
    return np.unique(whole, return_inverse=True)[1].reshape(-1).astype(np.int64)


def tie_groups_of_sets(vectors: npt.NDArray[np.float32], owner: Ints) -> Ints:
    """The same for labels of several vectors each [n]: those whose sets of vectors are equal share a number.

    Args:
        owner: the label of each vector, ascending, every one from 0 on.
    """
    sets = np.split(tie_groups(vectors), np.flatnonzero(np.diff(owner)) + 1)
    numbers: dict[frozenset[int], int] = {}
    return np.array([numbers.setdefault(frozenset(s.tolist()), len(numbers)) for s in sets], np.int64)


def tied(groups: Ints) -> int:
    """How many candidates share their vector with another."""
    return int((np.bincount(groups)[groups] > 1).sum())


def level(scores: Scores, groups: Ints) -> Scores:
    """Each candidate's score replaced by its tie group's highest: equal vectors tie exactly. What is −inf stays so:
    a picture's other true labels are no candidates, whatever shares their vectors."""
    order = np.argsort(groups, kind="stable")
    distinct, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    if len(distinct) == len(groups):
        return scores
    levelled = scores.copy()
    # Group by group, of those with several members: they are few, and no second copy is sorted by column.
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        members = order[start : start + size]
        own = scores[:, members]
        levelled[:, members] = np.where(np.isneginf(own), own, own.max(axis=1, keepdims=True))
    return levelled


def hit_ceiling(groups: Ints, true: Ints, k: int, expected: bool = False) -> float:
    """The best mean hit@k that the tie groups [m] leave: all ties lost, or in expectation over their order."""
    size = np.bincount(groups)[groups[true]]
    return float((np.minimum(k / size, 1.0) if expected else size <= k).mean())


def hierarchical_precision(scores: Scores, correct: Sequence[Ints], true: Ints, k: int) -> Floats:
    """hp@k per picture: |top-k ∩ C_k(label)| / k (Frome et al. 2013, section 4.1 and supplement); among
    equal scores the wrong candidates come first, so that hp@1 = hit@1.

    Args:
        correct: for each label, C_k as indices into the candidates; labels outside them left out.
        true: each picture's label, an index into `correct`.
    """
    return hierarchical_precisions(scores, {k: correct}, true)[k]


def hierarchical_precisions(scores: Scores, correct: Mapping[int, Sequence[Ints]], true: Ints) -> dict[int, Floats]:
    """The same for several k at once, k → C_k of each label: the scores are partitioned only once."""
    n, m = scores.shape
    found = {k: np.empty(n) for k in correct}
    kept = {k: min(k, m) for k in correct}
    widest = min(max(kept.values(), default=0) + 1, m)
    for rows in _blocks(n, m):
        block = np.where(np.isnan(scores[rows]), -np.inf, scores[rows])
        best = -np.sort(-np.partition(block, m - widest, axis=1)[:, m - widest :], axis=1)
        for k, lists_of in correct.items():
            kth = best[:, kept[k] - 1, None]
            lists = [lists_of[label] for label in true[rows]]
            row = np.repeat(np.arange(len(lists)), [len(c) for c in lists])
            own = block[row, np.concatenate(lists)]
            right_above = np.bincount(row, own > kth[row, 0], len(lists))
            right_at = np.bincount(row, own == kth[row, 0], len(lists))
            at = (best == kth).sum(axis=1)
            cut = np.flatnonzero(best[:, -1] == kth[:, 0])  # further equal scores may stand behind the widest
            at[cut] = (block[cut] == kth[cut]).sum(axis=1)
            free = kept[k] - (best > kth).sum(axis=1)
            found[k][rows] = right_above + (kth[:, 0] > -np.inf) * np.maximum(free - (at - right_at), 0)
    return {k: values / k for k, values in found.items()}


def hp_ceiling(correct: Sequence[Ints], true: Ints, k: int, candidates: int) -> float:
    """The best mean hp@k there can be: min(k, |C_k ∩ candidates|, candidates) / k."""
    sizes = np.array([len(c) for c in correct])
    return float((np.minimum(np.minimum(sizes[true], k), candidates) / k).mean())


def hp_chance(correct: Sequence[Ints], true: Ints, k: int, candidates: int) -> float:
    """Mean hp@k of a random order of the candidates: |C_k ∩ candidates| / candidates, over min(k, m)."""
    sizes = np.array([len(c) for c in correct])
    return float((sizes[true] / candidates * min(k, candidates) / k).mean())


def class_balanced(per_picture: Floats, true: Ints) -> Floats:
    """Per-picture values [n] weighted so that their mean is the mean over classes: for `bootstrap`, `paired`."""
    _, position, counts = np.unique(true, return_inverse=True, return_counts=True)
    return per_picture * (len(true) / (len(counts) * counts[position]))


def class_mean(per_picture: Floats, true: Ints) -> float:
    """The mean over classes of each class's mean, as the GBU benchmark reports."""
    return float(class_balanced(per_picture, true).mean())


def bootstrap(per_picture: Floats, seed: int = 0) -> Interval:
    """The mean with its 95 % percentile interval over resampled pictures (or class splits)."""
    values = np.asarray(per_picture, np.float64)
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    return _interval(float(values.mean()), _resampled_means(values, np.random.default_rng(seed)))


def paired(a: Floats, b: Floats, seed: int = 0) -> Interval:
    """mean(a − b) with its 95 % interval over the same resampled pictures: above zero means a is above b."""
    return bootstrap(np.asarray(a, np.float64) - np.asarray(b, np.float64), seed)


def _interval(value: float, resampled: Floats) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    # Summed in another order, equal values may differ in the last bit: an interval holds its own mean.
    return Interval(value, min(value, float(low)), max(value, float(high)))


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    n = len(values)
    # Equal values are drawn together: a multinomial over the few distinct ones instead of n indices.
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 64:
        return np.asarray(rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n, np.float64)
    return np.array([values[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)])


def harmonic(seen: float, unseen: float) -> float:
    """2SU / (S + U), 0 where both are."""
    return 0.0 if seen + unseen == 0 else 2 * seen * unseen / (seen + unseen)


def bootstrap_harmonic(seen: Floats, unseen: Floats, seed: int = 0) -> Interval:
    """Harmonic mean of two groups' means, seen and unseen pictures resampled each by themselves."""
    if not len(seen) or not len(unseen):
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    draws = zip(_resampled_means(seen, rng), _resampled_means(unseen, rng), strict=True)
    resampled = np.array([harmonic(float(s), float(u)) for s, u in draws])
    return _interval(harmonic(float(seen.mean()), float(unseen.mean())), resampled)


class Calibration(NamedTuple):
    """Per bias (subtracted from seen candidates' scores, ascending): accuracy on seen and on unseen pictures;
    the area under the whole seen-unseen curve (AUSUC, Chao et al. 2016), of which some points are kept here.
    """

    bias: Floats
    seen: Floats
    unseen: Floats
    area: float

    def best_bias(self) -> float:
        """The bias of the highest harmonic mean; among several the one nearest to none."""
        means = [harmonic(float(s), float(u)) for s, u in zip(self.seen, self.unseen, strict=True)]
        return float(self.bias[np.lexsort((np.abs(self.bias), -np.array(means)))[0]])


def calibration(scores: Scores, true: Ints, is_seen: Bools, steps: int = 201) -> Calibration:
    """Generalised zero-shot accuracy (hit@1 among all candidates, ties lost) over biases.

    Args:
        true: index of each picture's candidate [n].
        is_seen: bool [m], which candidates were trained on; pictures are seen where their candidate is.
        steps: points of the curve to keep, evenly spaced in rank; 0 is always among them.
    """
    rows = np.arange(len(true))
    own = scores[rows, true].astype(np.float64)
    others = scores.copy()
    others[rows, true] = -np.inf
    rival_seen = others.max(axis=1, where=is_seen, initial=-np.inf)
    rival_unseen = others.max(axis=1, where=~is_seen, initial=-np.inf)
    picture_seen = is_seen[true]
    # A seen picture is right while the bias is below its limit, an unseen one while above; or it never is.
    may = np.where(picture_seen, own > rival_seen, own > rival_unseen)
    s, u = may & picture_seen, may & ~picture_seen
    below, above = np.sort(own[s] - rival_unseen[s]), np.sort(rival_seen[u] - own[u])
    limits = np.unique(np.concatenate([below, above]))
    limits = limits[np.isfinite(limits)] if np.isfinite(limits).any() else np.zeros(1)
    reach = max(1.0, float(np.abs(limits).max())) * 1e-3
    between = np.concatenate([[limits[0] - reach], (limits[1:] + limits[:-1]) / 2, [limits[-1] + reach]])

    def at(bias: Floats) -> tuple[Floats, Floats]:
        seen = (len(below) - np.searchsorted(below, bias, "right")) / max(1, int(picture_seen.sum()))
        return seen, np.searchsorted(above, bias, "left") / max(1, int((~picture_seen).sum()))

    kept = np.linspace(0, len(between) - 1, min(steps, len(between))).round().astype(np.int64)
    bias = np.union1d(between[kept], 0.0)
    return Calibration(bias, *at(bias), area=float(np.trapezoid(*at(between))))


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
