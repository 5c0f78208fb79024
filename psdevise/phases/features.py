"""The features phase: a core that is taken as it is runs once over all pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from psdevise.data import features
from psdevise.data.features import Features
from psdevise.data.pictures import Columns, PictureTable, decode
from psdevise.errors import DataError
from psdevise.models.core import Core, CoreOptions, normalise

ROWS = 500


def compute(
    table: PictureTable, core: Core, options: CoreOptions, on_progress: Callable[[int, int], None]
) -> Iterator[Features]:
    """The core's outputs for all rows, in parts; broken pictures are left out."""
    core.eval()
    for start in range(0, table.rows, ROWS):
        stop = min(start + ROWS, table.rows)
        ids, labels, pixels = [], [], []
        for picture in table.read(start, stop):
            try:
                pixels.append(decode(picture.data, options.size))
            except DataError:
                continue
            ids.append(picture.id)
            labels.append(picture.labels)
        if pixels:
            with torch.inference_mode():
                values = core(normalise(np.stack(pixels), options)).float().numpy()
            yield Features(ids, values, labels)
        on_progress(stop, table.rows)


def write(
    path: str,
    table_path: str,
    columns: Columns,
    core: Core,
    options: CoreOptions,
    on_progress: Callable[[int, int], None],
) -> None:
    table = PictureTable(table_path, columns)
    features.write(path, compute(table, core, options, on_progress), core.features)
