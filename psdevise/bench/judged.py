"""Word vectors beside human judgements, as rows of a benchmark; what cannot be computed is noted, and no row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from psdevise.bench.table import Row
from psdevise.evaluation.words import Pair, similarity
from psdevise.labels.vectors import WordVectors


def rows(
    found: dict[str, list[WordVectors]],
    pairs: Mapping[str, Sequence[Pair]],
    case: str,
    on_note: Callable[[str], None],
) -> list[Row]:
    """Means over seeds; low and high are the lowest and the highest seed's. A system that has no figure at one of its
    seeds has no row, and `on_note` is told: 0 would be one."""
    made = []
    for name, judged in pairs.items():
        figures: dict[str, list[float]] = {}
        for system, vectors in found.items():
            values = [spearman(one, judged, f"{case}, {system}: {name}", on_note) for one in vectors]
            computed = [value for value in values if value is not None]
            if len(computed) == len(values):
                figures[system] = computed
        base = float(np.mean(figures["gensim"])) if "gensim" in figures else 0.0
        for system, each in figures.items():
            row = Row("words", case, system, f"{name}_spearman", float(np.mean(each)), min(each), max(each), "1")
            made.append(replace(row, reference="gensim", ratio=row.value / base) if base else row)
    return made


def spearman(vectors: WordVectors, judged: Sequence[Pair], what: str, on_note: Callable[[str], None]) -> float | None:
    """None, with a note, where it cannot be computed."""
    found = similarity(vectors, judged)
    if found.value is None:
        on_note(f"{what}: no Spearman; both words of {found.covered} of {found.total} pairs have vectors")
    return found.value
