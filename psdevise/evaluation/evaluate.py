"""Flat hit@k, hierarchical precision and generalised zero-shot accuracy of several systems on one test set.

Candidates that share their vector are tie groups: every tie counts against the system (`hit`), and the figure in
expectation over a random order stands beside it (`hit_expected`) where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from psdevise import scores
from psdevise.config import option
from psdevise.evaluation.pairing import Measured, Pairing, measure, pair
from psdevise.evaluation.result import Images, Result
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace
from psdevise.labels.split import Split
from psdevise.systems import Named, Scores, System


@dataclass(frozen=True)
class EvaluationOptions:
    hit_k: tuple[int, ...] = option((1, 2, 5, 10, 20), "k of hit@k")
    hp_k: tuple[int, ...] = option((1, 2, 5, 10, 20), "k of hierarchical precision")
    precision_k: int = option(20, "k of precision@k: of an unseen class's nearest pictures, how many are of it", low=1)
    crops: Literal[1, 10] = option(
        1, "1: the picture alone; 10: scores averaged over centre, corners and their mirror images (footnote 6)"
    )
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
    """What the rows of one evaluation share. `bias`: system → calibration bias chosen on validation data;
    `groups`: system → tie group of each class (`scores.tie_groups` of its label vectors), where it has vectors."""

    dataset: str
    seed: int
    split: Split
    space: LabelSpace
    hierarchy: Hierarchy | None
    options: EvaluationOptions
    bias: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def pairings(self, classes: Sequence[str], true: npt.NDArray[np.int64]) -> list[Pairing]:
        wanted: list[tuple[Images, Images]] = [("seen", "seen")]
        if self.split.unseen:
            wanted += [("unseen", "unseen"), ("unseen", "seen+unseen"), ("seen", "seen+unseen")]
        wnids, k = self.space.wnids, self.options.hp_k
        found = [pair(classes, true, self.split, *which, self.hierarchy, wnids, k) for which in wanted]
        return [pairing for pairing in found if len(pairing.rows)]

    def tie_groups(self, system: str, pairing: Pairing) -> npt.NDArray[np.int64]:
        """The candidates' tie groups [m]; each its own where the system compares no vectors."""
        if system not in self.groups:
            return np.arange(len(pairing.columns))
        return np.unique(self.groups[system][pairing.columns], return_inverse=True)[1].astype(np.int64)

    def row(
        self,
        system: Named,
        pairing: Pairing | None,
        metric: str,
        k: int | None,
        interval: tuple[float, float | None, float | None] | None,
        chance: float | None,
        ceiling: float | None,
        n: int,
    ) -> Result:
        value, low, high = interval or (None, None, None)
        images, candidates = (pairing.images, pairing.candidates) if pairing else ("seen+unseen", "seen+unseen")
        where = (self.dataset, self.split.name, self.seed, images, candidates)
        return Result(system.name, system.variant, *where, metric, k, value, low, high, chance, ceiling, n)


def results(scored: Scored, systems: Sequence[System], setting: Setting) -> list[Result]:
    """All rows of all systems."""
    rows: list[Result] = []
    pairings = setting.pairings(scored.classes, scored.true)
    for system in systems:
        for pairing in pairings:
            measured = measure([chosen(scored, system.name, setting, pairing)], pairing)
            rows += figures(measured, pairing, system, setting)
        if setting.split.unseen:
            rows += _generalised(scored, system, setting)
    return rows


def about(scored: Scored, systems: Sequence[System], setting: Setting) -> dict[str, object]:
    """What a reader needs to judge the figures: the hierarchy's hash, mean |C_k| of each pairing, and how many of its
    candidates share their vector with another."""
    pairings = [
        {
            "images": pairing.images,
            "candidates": pairing.candidates,
            "pictures": len(pairing.rows),
            "labels": len(pairing.columns),
            "mean_correct": {str(k): round(size, 3) for k, size in pairing.spread.items()},
            "tied": {s.name: scores.tied(setting.tie_groups(s.name, pairing)) for s in systems},
        }
        for pairing in setting.pairings(scored.classes, scored.true)
    ]
    return {"hierarchy": None if setting.hierarchy is None else setting.hierarchy.hash, "pairings": pairings}


def chosen(scored: Scored, system: str, setting: Setting, pairing: Pairing) -> Scores:
    """Scores [n, m] of the pairing's pictures and candidates; equal vectors have equal ones."""
    matrix = scored.by_system[system][np.ix_(pairing.rows, pairing.columns)]
    return scores.level(matrix, setting.tie_groups(system, pairing))


def figures(measured: Measured, pairing: Pairing, system: Named, setting: Setting) -> list[Result]:
    """hit@k, the class mean of hit@1 and hp@k of one system on one pairing."""
    n, m = len(pairing.rows), len(pairing.columns)
    groups, true = setting.tie_groups(system.name, pairing), pairing.true
    tied = scores.tied(groups) > 0
    rows: list[Result] = []
    # A system that cannot name what is in the picture has no hit@k there, only hp@k (the paper's Table 3).
    can_hit = bool(measured.nameable[true].any())
    for metric in ("hit", "hit_expected") if tied else ("hit",):
        expected = metric == "hit_expected"
        for k in setting.options.hit_k:
            values = measured.places.expected_hits(k) if expected else measured.places.hits(k)
            interval = scores.bootstrap(values, setting.seed) if can_hit else None
            ceiling = scores.hit_ceiling(groups, true, k, expected)
            rows.append(setting.row(system, pairing, metric, k, interval, min(k, m) / m, ceiling, n))
    if can_hit:
        balanced = scores.bootstrap(scores.class_balanced(measured.places.hits(1), true), setting.seed)
        ceiling = scores.hit_ceiling(groups, np.unique(true), 1)
        rows.append(setting.row(system, pairing, "class_mean_hit", 1, balanced, 1 / m, ceiling, n))
    # Chance and ceiling of hp are over the labels that the system can emit: softmax names no unseen one.
    emitted = int(measured.nameable.sum())
    for k, lists in pairing.correct.items():
        if emitted == 0:
            rows.append(setting.row(system, pairing, "hp", k, None, None, None, n))
            continue
        reachable = [c[measured.nameable[c]] for c in lists]
        chance = scores.hp_chance(reachable, pairing.label, k, emitted)
        ceiling = scores.hp_ceiling(reachable, pairing.label, k, emitted)
        interval = scores.bootstrap(measured.hp[k], setting.seed)
        rows.append(setting.row(system, pairing, "hp", k, interval, chance, ceiling, n))
    return rows


@dataclass(frozen=True)
class _Generalised:
    """All pictures among all candidates."""

    matrix: Scores
    pairing: Pairing
    is_seen: npt.NDArray[np.bool_]

    @property
    def complete(self) -> bool:
        """Whether the system can name every candidate."""
        return len(self.matrix) > 0 and bool(np.isfinite(self.matrix).any(axis=0).all())

    def hits(self, bias: float) -> tuple[scores.Floats, scores.Floats]:
        """hit@1 of seen and of unseen pictures, `bias` subtracted from the scores of seen candidates. In float64: the
        bias stands between two scores, perhaps nearer than a float32 tells."""
        shifted = self.matrix.astype(np.float64) - bias * self.is_seen
        right = scores.places(shifted, self.pairing.true).hits(1)
        picture_seen = self.is_seen[self.pairing.true]
        return right[picture_seen], right[~picture_seen]


def _all_pictures(scored: Scored, system: System, setting: Setting) -> _Generalised:
    pairing = pair(scored.classes, scored.true, setting.split, "seen+unseen", "seen+unseen")
    is_seen = np.isin(np.array(scored.classes)[pairing.columns], setting.split.seen)
    return _Generalised(chosen(scored, system.name, setting, pairing), pairing, is_seen)


def _generalised(scored: Scored, system: System, setting: Setting) -> list[Result]:
    """Harmonic mean of hit@1 on seen and on unseen pictures among all candidates; `harmonic` without a
    bias, `harmonic_calibrated` with the one chosen on validation data, `ausuc` the area under the whole curve."""
    whole = _all_pictures(scored, system, setting)
    n, m, true = len(whole.pairing.rows), len(whole.pairing.columns), whole.pairing.true
    if not whole.complete:
        return [setting.row(system, None, metric, 1, None, None, None, n) for metric in ("harmonic", "ausuc")]
    picture_seen = whole.is_seen[true]
    groups = setting.tie_groups(system.name, whole.pairing)

    def ceilings(groups: npt.NDArray[np.int64]) -> tuple[float, float]:
        # Of seen and of unseen pictures.
        parts = [true[picture_seen], true[~picture_seen]]
        return tuple(scores.hit_ceiling(groups, part, 1) if len(part) else 0.0 for part in parts)  # type: ignore[return-value]

    found = [
        setting.row(
            system,
            None,
            "harmonic",
            1,
            scores.bootstrap_harmonic(*whole.hits(0.0), setting.seed),
            1 / m,
            scores.harmonic(*ceilings(groups)),
            n,
        )
    ]
    # A bias may part a tie between a seen and an unseen candidate.
    seen_ceiling, unseen_ceiling = ceilings(2 * groups + whole.is_seen)
    area = scores.calibration(whole.matrix, true, whole.is_seen).area
    ceiling = seen_ceiling * unseen_ceiling
    found.append(setting.row(system, None, "ausuc", 1, (area, None, None), None, ceiling, n))
    if system.name in setting.bias:
        interval = scores.bootstrap_harmonic(*whole.hits(setting.bias[system.name]), setting.seed)
        ceiling = scores.harmonic(seen_ceiling, unseen_ceiling)
        found.append(setting.row(system, None, "harmonic_calibrated", 1, interval, None, ceiling, n))
    return found


def curves(scored: Scored, systems: Sequence[System], setting: Setting) -> dict[str, list[tuple[float, float]]]:
    """system → (seen, unseen) accuracies over calibration biases."""
    found = {}
    for system in systems if setting.split.unseen else ():
        whole = _all_pictures(scored, system, setting)
        if whole.complete:
            curve = scores.calibration(whole.matrix, whole.pairing.true, whole.is_seen)
            found[system.name] = [(float(s), float(u)) for s, u in zip(curve.seen, curve.unseen, strict=True)]
    return found


def comparisons(scored: Scored, systems: Sequence[System], setting: Setting) -> list[dict[str, object]]:
    """DeViSE minus each other system on the same pictures, with the paired interval: above zero = above."""
    if not any(s.name == "devise" for s in systems):
        return []
    rows: list[dict[str, object]] = []
    for pairing in setting.pairings(scored.classes, scored.true):
        measured = {s.name: measure([chosen(scored, s.name, setting, pairing)], pairing) for s in systems}
        for other in (name for name in measured if name != "devise"):
            for metric, k, a, b in _comparable(measured["devise"], measured[other], pairing, setting):
                what: dict[str, object] = {
                    "against": other,
                    "images": pairing.images,
                    "candidates": pairing.candidates,
                    "metric": metric,
                    "k": k,
                }
                rows.append(what | scores.paired(a, b, setting.seed)._asdict())
    return rows


def _comparable(
    a: Measured, b: Measured, pairing: Pairing, setting: Setting
) -> list[tuple[str, int, scores.Floats, scores.Floats]]:
    """Metric, k and both systems' figures per picture, of what both can answer."""
    found: list[tuple[str, int, scores.Floats, scores.Floats]] = []
    if b.nameable[pairing.true].any():
        found = [("hit", k, a.places.hits(k), b.places.hits(k)) for k in setting.options.hit_k]
        first, second = (scores.class_balanced(each.places.hits(1), pairing.true) for each in (a, b))
        found.append(("class_mean_hit", 1, first, second))
    if b.nameable.any():
        found += [("hp", k, a.hp[k], b.hp[k]) for k in pairing.correct]
    return found
