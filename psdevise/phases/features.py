"""The features phase: a core that is taken as it is runs once over all training pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from psdevise.data import features
from psdevise.data.features import Features
from psdevise.data.pictures import PictureTable, decode
from psdevise.errors import DataError
from psdevise.models.core import CoreOptions, normalise
from psdevise.phases.pictures import PictureSource

ROWS = 500


def validation_path(path: str) -> str:
    """Beside the training pictures' features stand those that were kept back."""
    return path.removesuffix(".parquet") + ".validation.parquet"


def write(
    path: str,
    source: PictureSource,
    core: nn.Module,
    width: int,
    options: CoreOptions,
    on_progress: Callable[[int, int], None],
) -> None:
    """Writes the outputs [n, width] of the training and of the validation pictures, each to its file."""
    table = PictureTable(source.table, source.columns)
    held_back = table.source_rows() >= source.validation_from
    kept: list[Features] = []

    def training() -> Iterator[Features]:
        for part, rows in compute(table, core, options, on_progress):
            back = held_back[rows]
            kept.append(_pick(part, np.flatnonzero(back)))
            yield _pick(part, np.flatnonzero(~back))

    features.write(path, training(), width)
    features.write(validation_path(path), kept, width)


def compute(
    table: PictureTable,
    core: nn.Module,
    options: CoreOptions,
    on_progress: Callable[[int, int], None],
    first: int = 0,
) -> Iterator[tuple[Features, list[int]]]:
    """The core's outputs for all rows that stood at `first` of their source or behind it, in parts, with their row
    numbers; broken pictures are left out."""
    core.eval()
    wanted = table.source_rows() >= first
    for start in range(0, table.rows, ROWS):
        stop = min(start + ROWS, table.rows)
        ids, labels, pixels, rows = [], [], [], []
        for picture in table.read(start, stop) if wanted[start:stop].any() else ():
            if not wanted[picture.row]:
                continue
            try:
                pixels.append(decode(picture.data, options.size))
            except DataError:
                continue
            ids.append(picture.id)
            labels.append(picture.labels)
            rows.append(picture.row)
        if pixels:
            with torch.inference_mode():
                values = core(normalise(np.stack(pixels), options)).float().numpy()
            yield Features(ids, values, labels), rows
        on_progress(stop, table.rows)


def _pick(part: Features, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Features:
    return Features([part.ids[r] for r in rows], part.values[rows], [part.labels[r] for r in rows])
