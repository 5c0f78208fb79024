"""Seen and unseen pictures among all classes, in Socher et al.'s protocol: who is new, and what follows (Figure 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psdevise.compare.cells import Arrays
from psdevise.systems.novelty import LocalOutlierProbability, fit_gaussians
from psdevise.systems.socher import nearest

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
EXTENTS = tuple(range(1, 14))  # λ of LoOP
QUANTILES = 201  # kept points of the threshold's curve
MAPPED = 25  # mapped test pictures of each class that are kept, for the projection map


def both(
    mapped: Floats,
    mapped_train: Floats,
    seen_p: npt.NDArray[np.floating],
    vectors: Floats,
    classes: tuple[Ints, Ints],
    targets: Ints,
    true: Ints,
) -> Arrays:
    """Accuracies on seen and on unseen pictures over all thresholds of the likelihood, and over λ of LoOP, whose
    probability weighs the two classifiers.

    Args:
        mapped: test pictures in the space of the words [m, dim]; mapped_train: training pictures [n, dim].
        seen_p: softmax over the seen classes for the test pictures [m, seen].
        vectors: of all classes [classes, dim]; classes: numbers of the seen and of the unseen ones.
        targets: the training pictures' classes as indices into the seen ones [n]; true: the test pictures' classes [m].
    """
    seen, unseen = classes
    is_seen = np.isin(true, seen)
    right_seen = seen[seen_p.argmax(axis=1)] == true
    gaussians = fit_gaussians(mapped_train, targets, vectors[seen])
    spread = float(gaussians.variance.mean())
    unseen_p = nearest(mapped, vectors[unseen], spread)
    right_unseen = unseen[unseen_p.argmax(axis=1)] == true

    # Below the threshold a picture is new, at or above it seen.
    training = np.sort(np.unique(gaussians.log_likelihood(mapped_train)))
    likelihood = gaussians.log_likelihood(mapped)
    thresholds = np.concatenate([[-np.inf], training, [np.inf]])
    on_seen = _share_at_least(likelihood[is_seen & right_seen], thresholds, int(is_seen.sum()))
    below = np.sort(likelihood[~is_seen & right_unseen])
    on_unseen = np.searchsorted(below, thresholds, "left") / int((~is_seen).sum())
    kept = np.unique(np.linspace(0, len(thresholds) - 1, QUANTILES).round().astype(np.int64))

    model = LocalOutlierProbability(mapped_train)
    plof = model.plof(mapped)
    loop = []
    for extent in EXTENTS:
        novel = model.probability(plof, extent)[:, None]
        whole = np.concatenate([(1 - novel) * seen_p, novel * unseen_p], axis=1)
        right = np.concatenate([seen, unseen])[whole.argmax(axis=1)] == true
        loop.append((right[is_seen].mean(), right[~is_seen].mean()))

    chosen = np.concatenate([np.flatnonzero(true == y)[:MAPPED] for y in range(len(vectors))])
    return {
        "seen": right_seen[is_seen].astype(np.uint8),
        "curve": np.stack([on_seen[kept], on_unseen[kept]], axis=1).astype(np.float32),
        "area": np.array([np.trapezoid(on_unseen, -on_seen)]),
        "eleven": _at_quantiles(on_seen, on_unseen),
        "loop": np.array(loop, np.float32),
        "mapped": mapped[chosen],
        "mapped_labels": true[chosen],
        "vectors": vectors,
    }


def _share_at_least(values: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64], of: int) -> Any:
    return (len(values) - np.searchsorted(np.sort(values), thresholds, "left")) / of


def _at_quantiles(seen: npt.NDArray[np.float64], unseen: npt.NDArray[np.float64]) -> Floats:
    """The authors' eleven thresholds: quantiles of the training likelihoods, 0 to 1."""
    inner = np.linspace(1, len(seen) - 2, 11).round().astype(np.int64)
    return np.stack([seen[inner], unseen[inner]], axis=1).astype(np.float32)
