"""Scores of all test pictures by all systems, a few hundred at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from psdevise.data.pictures import PictureTable, crops_of, decode
from psdevise.errors import DataError
from psdevise.evaluation.evaluate import Scored
from psdevise.systems import System


def score_all(
    table: PictureTable,
    rows: Sequence[int],
    classes: tuple[str, ...],
    systems: Sequence[System],
    size: int,
    batch: int,
    on_progress: Callable[[int, int], None],
    crops: int = 1,
) -> tuple[Scored, list[int]]:
    """Scores of `rows` that have a label among `classes`; broken pictures are left out. Returns also the
    row of each scored picture.

    Args:
        crops: 1 scores the picture alone; 10 averages the scores of ten crops (Frome et al. 2013, footnote 6;
            Krizhevsky et al. 2012, section 4.1).
    """
    index = {name: i for i, name in enumerate(classes)}
    wanted = set(rows)
    true: list[int] = []
    kept: list[int] = []
    parts: dict[str, list[np.ndarray[tuple[int, int], np.dtype[np.float32]]]] = {s.name: [] for s in systems}
    for start in range(0, table.rows, batch):
        stop = min(start + batch, table.rows)
        if wanted.isdisjoint(range(start, stop)):
            continue
        pixels, others = [], []
        for picture in table.read(start, stop):
            labels = [index[v] for v in picture.labels if v in index]
            if picture.row not in wanted or not labels:
                continue
            try:
                pixels.append(decode(picture.data, size) if crops == 1 else crops_of(picture.data, size))
            except DataError:
                continue
            true.append(labels[0])
            kept.append(picture.row)
            others.append(labels[1:])
        if pixels:
            stacked = np.stack(pixels)
            for system in systems:
                # Ten crops stand together: [n · 10, size, size, 3].
                found = system.score(stacked.reshape(-1, *stacked.shape[-3:]), classes)
                found = found.reshape(len(stacked), crops, -1).mean(axis=1)
                for i, columns in enumerate(others):
                    found[i, columns] = -np.inf
                parts[system.name].append(found)
        on_progress(stop, table.rows)
    by_system = {name: np.concatenate(p) if p else np.zeros((0, len(classes)), np.float32) for name, p in parts.items()}
    return Scored(classes, np.array(true, np.int64), by_system), kept
