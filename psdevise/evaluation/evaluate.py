"""Flat hit@k, hierarchical precision and generalised zero-shot accuracy of several systems on one test set.

Three pairings of pictures and candidates, as the paper has them: seen pictures among seen classes (the
supervised test), unseen among unseen (DeViSE-0) and unseen among all (DeViSE+1K); seen among all completes
the generalised form, whose harmonic mean is given with and without a calibration bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psdevise import scores
from psdevise.config import option
from psdevise.evaluation.result import Images, Result
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace
from psdevise.labels.split import Split
from psdevise.systems import Scores, System


@dataclass(frozen=True)
class EvaluationOptions:
    hit_k: tuple[int, ...] = option((1, 2, 5, 10, 20), "k of hit@k")
    hp_k: tuple[int, ...] = option((1, 2, 5, 10, 20), "k of hierarchical precision")
    pictures_on_sheet: int = option(12, "pictures on the report's sheet of examples, half of them unseen", low=0)
    batch: int = option(500, "pictures that are decoded and scored at a time", low=1)


@dataclass
class Scored:
    """Every picture's scores against all classes, per system, and its true class (index into `classes`).

    A picture's other true labels are taken out of its candidates: none of them is ever a false term.
    """

    classes: tuple[str, ...]
    true: npt.NDArray[np.int64]
    by_system: dict[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What the rows of one evaluation share. `bias`: system → calibration bias chosen on validation data."""

    dataset: str
    seed: int
    split: Split
    space: LabelSpace
    hierarchy: Hierarchy | None
    options: EvaluationOptions
    bias: Mapping[str, float]


def results(scored: Scored, systems: Sequence[System], setting: Setting) -> list[Result]:
    """All rows of all systems."""
    rows: list[Result] = []
    pairings: list[tuple[Images, Images]] = [("seen", "seen")]
    if setting.split.unseen:
        pairings += [("unseen", "unseen"), ("unseen", "seen+unseen"), ("seen", "seen+unseen")]
    for system in systems:
        for images, candidates in pairings:
            rows += _pairing(scored, system, setting, images, candidates)
        if setting.split.unseen:
            rows += _generalised(scored, system, setting)
    return rows


def select(
    scored: Scored, system: str, setting: Setting, images: Images, candidates: Images
) -> tuple[Scores, npt.NDArray[np.int64], tuple[str, ...]]:
    """Scores [n, m] of the pairing's pictures and candidates, the true columns [n] (−1: not a candidate),
    and the candidates' names."""
    columns = _members(scored.classes, setting.split, candidates)
    rows = np.flatnonzero(np.isin(scored.true, _members(scored.classes, setting.split, images)))
    position = np.full(len(scored.classes), -1, np.int64)
    position[columns] = np.arange(len(columns))
    chosen = scored.by_system[system][np.ix_(rows, columns)]
    return chosen, position[scored.true[rows]], tuple(scored.classes[c] for c in columns)


def _pairing(scored: Scored, system: System, setting: Setting, images: Images, candidates: Images) -> list[Result]:
    matrix, true, names = select(scored, system.name, setting, images, candidates)
    n, m = matrix.shape
    if n == 0:
        return []
    rows: list[Result] = []

    def row(metric: str, k: int, per_picture: npt.NDArray[np.float64] | None, chance: float, ceiling: float) -> None:
        interval = scores.bootstrap(per_picture, setting.seed) if per_picture is not None else None
        value, low, high = interval or (None, None, None)
        rows.append(_result(system, setting, images, candidates, metric, k, value, low, high, chance, ceiling, n))

    # A system that cannot name what is in the picture has no hit@k there, only hp@k (the paper's Table 3).
    can_hit = bool(np.isfinite(matrix[np.arange(n), true]).any())
    for k in setting.options.hit_k:
        chance = min(k, m) / m
        row("hit", k, scores.hits(matrix, true, k) if can_hit else None, chance, 1.0)
    if can_hit:
        first = scores.hits(matrix, true, 1)
        value = scores.class_mean(first, true)
        rows.append(_result(system, setting, images, candidates, "class_mean_hit", 1, value, None, None, 1 / m, 1.0, n))
    for k in setting.options.hp_k:
        rows += _hp(matrix, scored, setting, system, images, candidates, names, k)
    return rows


def _hp(
    matrix: Scores,
    scored: Scored,
    setting: Setting,
    system: System,
    images: Images,
    candidates: Images,
    names: tuple[str, ...],
    k: int,
) -> list[Result]:
    """hp@k against C_k over the valid labels: the seen ones for seen pictures among seen candidates, else
    seen and unseen ones."""
    hierarchy, wnids = setting.hierarchy, setting.space.wnids
    everything = [c for c in scored.classes if c in wnids]
    if hierarchy is None or len(everything) < len(scored.classes):
        return []
    supervised = images == "seen" and candidates == "seen"
    valid = [c for c in scored.classes if c in set(setting.split.seen)] if supervised else everything
    of_image = _members(scored.classes, setting.split, images)
    labels = [scored.classes[c] for c in of_image]
    lists = hierarchy.correct_lists([wnids[c] for c in labels], [wnids[c] for c in valid], k)
    column = {name: i for i, name in enumerate(names)}
    correct = [np.array([column[valid[i]] for i in found if valid[i] in column], np.int64) for found in lists]
    position = {c: i for i, c in enumerate(of_image)}
    true = np.array([position[t] for t in scored.true if t in position], np.int64)
    n = len(true)
    # Chance and ceiling are over the labels that the system can emit: softmax names no unseen one.
    nameable = np.asarray(np.isfinite(matrix).any(axis=0))
    emitted = int(nameable.sum())
    if emitted == 0:
        return [_result(system, setting, images, candidates, "hp", k, None, None, None, None, None, n)]
    per_picture = scores.hierarchical_precision(matrix, correct, true, k)
    value, low, high = scores.bootstrap(per_picture, setting.seed)
    correct = [c[nameable[c]] for c in correct]
    chance = scores.hp_chance(correct, true, k, emitted)
    ceiling = scores.hp_ceiling(correct, true, k, emitted)
    return [_result(system, setting, images, candidates, "hp", k, value, low, high, chance, ceiling, n)]


def _generalised(scored: Scored, system: System, setting: Setting) -> list[Result]:
    """Harmonic mean of hit@1 on seen and on unseen pictures among all candidates; `harmonic` without a
    bias, `harmonic_calibrated` with the one chosen on validation data, `ausuc` the curve's area."""
    matrix, true, names = select(scored, system.name, setting, "seen+unseen", "seen+unseen")
    is_seen = np.isin(names, setting.split.seen)
    named = np.isfinite(matrix).all()
    found: list[tuple[str, float | None]] = [("harmonic", None), ("ausuc", None)]
    if named:
        curve = scores.calibration(matrix, true, is_seen)
        zero = int(np.argmin(np.abs(curve.bias)))
        found = [
            ("harmonic", scores.harmonic(float(curve.seen[zero]), float(curve.unseen[zero]))),
            ("ausuc", curve.area),
        ]
        if system.name in setting.bias:
            nearest = int(np.argmin(np.abs(curve.bias - setting.bias[system.name])))
            at = scores.harmonic(float(curve.seen[nearest]), float(curve.unseen[nearest]))
            found.append(("harmonic_calibrated", at))
    return [
        _result(system, setting, "seen+unseen", "seen+unseen", metric, 1, value, None, None, None, 1.0, len(true))
        for metric, value in found
    ]


def curves(scored: Scored, systems: Sequence[System], setting: Setting) -> dict[str, list[tuple[float, float]]]:
    """system → (seen, unseen) accuracies over calibration biases."""
    found = {}
    for system in systems:
        matrix, true, names = select(scored, system.name, setting, "seen+unseen", "seen+unseen")
        if np.isfinite(matrix).all() and setting.split.unseen:
            curve = scores.calibration(matrix, true, np.isin(names, setting.split.seen))
            found[system.name] = [(float(s), float(u)) for s, u in zip(curve.seen, curve.unseen, strict=True)]
    return found


def comparisons(scored: Scored, systems: Sequence[System], setting: Setting) -> list[dict[str, object]]:
    """DeViSE minus each other system on the same pictures, with the paired interval: above zero = above."""
    ours = next((s.name for s in systems if s.name == "devise"), None)
    if ours is None:
        return []
    rows: list[dict[str, object]] = []
    pairings: list[tuple[Images, Images]] = [("seen", "seen")]
    if setting.split.unseen:
        pairings += [("unseen", "unseen"), ("unseen", "seen+unseen")]
    for other in (s.name for s in systems if s.name != ours):
        for images, candidates in pairings:
            a, true, _ = select(scored, ours, setting, images, candidates)
            b, _, _ = select(scored, other, setting, images, candidates)
            if not np.isfinite(b[np.arange(len(true)), true]).any():
                continue
            for k in (1, 5):
                difference = scores.paired(scores.hits(a, true, k), scores.hits(b, true, k), setting.seed)
                what: dict[str, object] = {"against": other, "images": images, "candidates": candidates}
                rows.append(what | {"metric": "hit", "k": k} | difference._asdict())
    return rows


def _members(classes: Sequence[str], split: Split, which: Images) -> npt.NDArray[np.int64]:
    wanted = {
        "seen": set(split.seen),
        "unseen": set(split.unseen),
        "seen+unseen": {*split.seen, *split.unseen},
    }
    return np.array([i for i, c in enumerate(classes) if c in wanted[which]], np.int64)


def _result(
    system: System,
    setting: Setting,
    images: Images,
    candidates: Images,
    metric: str,
    k: int | None,
    value: float | None,
    low: float | None,
    high: float | None,
    chance: float | None,
    ceiling: float | None,
    n: int,
) -> Result:
    return Result(
        system.name,
        system.variant,
        setting.dataset,
        setting.split.name,
        setting.seed,
        images,
        candidates,
        metric,
        k,
        value,
        low,
        high,
        chance,
        ceiling,
        n,
    )
