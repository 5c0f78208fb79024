"""Chollet 2016's MAP@100, with its ceiling and what chance gives: arrays in, figures out, as in `psdevise.scores`."""

from __future__ import annotations

import numpy as np

from psdevise.scores import Bools, Floats, Scores, top_k


def map_at_100(scores: Scores, relevant: Bools, reading: str = "by_class", weights: Floats | None = None) -> float:
    """Chollet 2016's MAP@100: the mean over classes of the mean over k = 1 … 100 of P(k, class), times a
    class weight.

    by_class: P = precision of the class's k highest-scored pictures; by_image: among the pictures whose
    top-k labels contain the class, the share that truly have it, 0 if none. Of equal scores what is wrong comes first.

    Args:
        relevant: bool [n, m], which picture has which class.
    """
    own = precision_at_100(scores, relevant, reading)
    return float((own if weights is None else own * weights).mean())


def precision_at_100(scores: Scores, relevant: Bools, reading: str = "by_class") -> Floats:
    """What `map_at_100` is the mean of: of each class the mean over k = 1 … 100 of P(k, class) [m]."""
    m = scores.shape[1]
    # Ties count against us: what is right stands a hair lower, by less than float32 scores can differ.
    scores = np.where(relevant, np.nextafter(scores.astype(np.float64), -np.inf), scores)
    if reading == "by_class":
        order = top_k(np.ascontiguousarray(scores.T), 100)
        found = relevant[order, np.arange(m)[:, None]].cumsum(axis=1)
        return np.asarray((found / np.arange(1, order.shape[1] + 1)).sum(axis=1) / 100, np.float64)
    best = top_k(scores, 100)
    place = best * 100 + np.arange(best.shape[1])
    true = np.take_along_axis(relevant, best, axis=1)
    listed = np.bincount(place.reshape(-1), minlength=m * 100).reshape(m, 100).cumsum(axis=1)
    right = np.bincount(place.reshape(-1), true.reshape(-1), m * 100).reshape(m, 100).cumsum(axis=1)
    return np.asarray((right / np.maximum(listed, 1)).sum(axis=1) / 100, np.float64)


def map_ceiling(relevant: Bools, reading: str = "by_class", weights: Floats | None = None) -> float:
    """What MAP@100 cannot exceed.

    by_class: min(k, n_c) / k for a class of n_c pictures. by_image: a picture lists k labels but has only
    |L| of them, so Σ max(0, k − |L|) listings are wrong; a wrong one costs its class at least w_c / n, and
    a class takes at most n − n_c of them. This is a bound, met at k = 1 and k = m, elsewhere up to 1/m high.
    """
    n, m = relevant.shape
    weights = np.ones(m) if weights is None else weights
    have = relevant.sum(axis=0)
    if reading == "by_class":
        k = np.arange(1, min(100, n) + 1)
        return float(((np.minimum(k, have[:, None]) / k).sum(axis=1) / 100 * weights).mean())
    weights = weights * (have > 0)
    cheapest = np.argsort(weights, kind="stable")
    room = np.append(0, (n - have)[cheapest].cumsum())
    cost = np.append(0, ((n - have) * weights)[cheapest].cumsum()) / n
    wrong = [np.maximum(min(k, m) - relevant.sum(axis=1), 0).sum() for k in range(1, 101)]
    return float((weights.sum() - np.interp(wrong, room, cost)).mean() / m)


def map_chance(relevant: Bools, reading: str = "by_class", weights: Floats | None = None) -> float:
    """MAP@100 of random scores in expectation: a class's share of the pictures, times (by_image) how often
    any picture lists it, 1 − (1 − k/m)^n; by_class 0 for k above n."""
    n, m = relevant.shape
    weights = np.ones(m) if weights is None else weights
    k = np.arange(1, 101)
    some = k <= n if reading == "by_class" else 1 - (1 - np.minimum(k, m) / m) ** n
    return float((relevant.mean(axis=0) * weights).mean() * some.mean())
