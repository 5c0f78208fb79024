"""Which pictures are compared with which candidates, the ground truth of both, and what a system gets there.

Three pairings as the paper has them: seen pictures among seen classes (the supervised test), unseen among unseen
(DeViSE-0) and unseen among all (DeViSE+1K); seen among all completes the generalised form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from psdevise import scores
from psdevise.evaluation.result import Images
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.split import Split

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairing:
    """
    Attributes:
        columns: the candidates, as indices into all classes [m].
        rows: the pictures, as indices into all pictures [n].
        true: each picture's class as an index into `columns` [n].
        label: the same as an index into the lists of `correct` [n].
        correct: k → for each label C_k as indices into `columns`, valid labels that are no candidates left out;
            empty without a hierarchy that holds all classes.
        spread: k → mean |C_k| over the pictures, before that.
    """

    images: Images
    candidates: Images
    columns: Ints
    rows: Ints
    true: Ints
    label: Ints
    correct: Mapping[int, list[Ints]]
    spread: Mapping[int, float]


@dataclass(frozen=True)
class Measured:
    """What a system gets on the n pictures of a pairing; `nameable`: which of the m candidates it can name."""

    places: scores.Places
    hp: Mapping[int, scores.Floats]
    nameable: scores.Bools


def pair(
    classes: Sequence[str],
    true: Ints,
    split: Split,
    images: Images,
    candidates: Images,
    hierarchy: Hierarchy | None = None,
    wnids: Mapping[str, str] | None = None,
    hp_k: Sequence[int] = (),
) -> Pairing:
    """
    Args:
        classes: all of them; `true` [N] is each picture's, as an index.
        wnids: class → node of the hierarchy.
    """
    columns = members(classes, split, candidates)
    of_image = members(classes, split, images)
    rows = np.flatnonzero(np.isin(true, of_image))
    column = _inverse(columns, len(classes))
    label = _inverse(of_image, len(classes))[true[rows]]
    correct: dict[int, list[Ints]] = {}
    spread: dict[int, float] = {}
    if hierarchy is not None and wnids is not None and all(c in wnids for c in classes):
        supervised = images == candidates == "seen"
        valid = members(classes, split, "seen") if supervised else np.arange(len(classes))
        found = hierarchy.correct_lists_of(
            [wnids[classes[c]] for c in of_image], [wnids[classes[c]] for c in valid], hp_k
        )
        for k, lists in found.items():
            sizes = np.array([len(c) for c in lists])
            spread[k] = float(sizes[label].mean()) if len(label) else 0.0
            mapped = [column[valid[c]] for c in lists]
            correct[k] = [c[c >= 0] for c in mapped]
    return Pairing(images, candidates, columns, rows, column[true[rows]], label, correct, spread)


def measure(blocks: Iterable[scores.Scores], pairing: Pairing) -> Measured:
    """
    Args:
        blocks: the scores of the pairing's pictures among its candidates, [some, m] at a time and in order, levelled
            over tie groups: not all of them need to be in memory.
    """
    above, equal = [], []
    hp: dict[int, list[scores.Floats]] = {k: [] for k in pairing.correct}
    nameable = np.zeros(len(pairing.columns), np.bool_)
    start = 0
    for block in blocks:
        rows = slice(start, start + len(block))
        start += len(block)
        places = scores.places(block, pairing.true[rows])
        above.append(places.above)
        equal.append(places.equal)
        nameable |= np.isfinite(block).any(axis=0)
        for k, values in scores.hierarchical_precisions(block, pairing.correct, pairing.label[rows]).items():
            hp[k].append(values)
    whole = {k: np.concatenate(parts) if parts else np.zeros(0) for k, parts in hp.items()}
    nothing = np.zeros(0, np.int64)
    return Measured(
        scores.Places(np.concatenate([nothing, *above]), np.concatenate([nothing, *equal])), whole, nameable
    )


def members(classes: Sequence[str], split: Split, which: Images) -> Ints:
    """The seen, unseen or all classes of the split, as indices into `classes`."""
    wanted = {
        "seen": set(split.seen),
        "unseen": set(split.unseen),
        "seen+unseen": {*split.seen, *split.unseen},
    }[which]
    return np.array([i for i, c in enumerate(classes) if c in wanted], np.int64)


def _inverse(positions: Ints, length: int) -> Ints:
    found = np.full(length, -1, np.int64)
    found[positions] = np.arange(len(positions))
    return found
