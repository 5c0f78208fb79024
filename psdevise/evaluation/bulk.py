"""Naming a whole data set: Parquet in, Parquet out (id, labels, scores), stopped and continued at will.

OUT.parts/000000.parquet …      a part for every few thousand pictures, each written whole
OUT                             put together at the end, rows in the order of the input
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from psdevise import store
from psdevise.data import namings
from psdevise.data.pictures import PictureTable, decode
from psdevise.errors import ConfigError, DataError
from psdevise.index import Index
from psdevise.tagger import Tagger

PART_ROWS = 2000
BATCH_ROWS = 500


def predict_table(
    tagger: Tagger,
    table: str,
    out: str,
    labels: Sequence[str] | None,
    k: int,
    min_score: float | None,
    on_progress: Callable[[int, int], None],
) -> int:
    """Names every picture of `table`; a broken one gets empty lists, one whose best score is below
    `min_score` the label "unknown". Returns the rows written.

    Raises:
        ConfigError: parts of another prediction lie there.
    """
    pictures = PictureTable(table)
    index = tagger.index_of(labels if labels is not None else tagger.labels)
    parts = out + ".parts"
    plan = {"table": pictures.fingerprint, "labels": list(index.names), "k": k, "min_score": min_score}
    plan_path = store.join(parts, "plan.json")
    if store.exists(plan_path) and store.read_json(plan_path) != plan:
        raise ConfigError(
            "parts of another prediction are here", where=parts, mend="remove them, or give another --out"
        )
    store.write_json(plan_path, plan)
    names = []
    for start in range(0, pictures.rows, PART_ROWS):
        stop = min(start + PART_ROWS, pictures.rows)
        path = store.join(parts, f"{start:09d}.parquet")
        names.append(path)
        if not store.exists(path):
            namings.write(path, _named(tagger, pictures, index, start, stop, k, min_score))
        on_progress(stop, pictures.rows)
    rows = namings.join(out, names)
    store.remove(parts)
    return rows


def _named(
    tagger: Tagger, pictures: PictureTable, index: Index, start: int, stop: int, k: int, min_score: float | None
) -> list[namings.Row]:
    rows: list[namings.Row] = []
    for first in range(start, stop, BATCH_ROWS):
        pixels, places = [], []
        for picture in pictures.read(first, min(first + BATCH_ROWS, stop)):
            rows.append((picture.id, [], []))
            try:
                pixels.append(decode(picture.data, tagger.size))
                places.append(len(rows) - 1)
            except DataError:
                continue
        if not pixels:
            continue
        for place, found in zip(places, tagger.nearest(tagger.embed_pixels(np.stack(pixels)), index, k), strict=True):
            id = rows[place][0]
            if min_score is not None and found[0].score < min_score:
                rows[place] = (id, ["unknown"], [found[0].score])
            else:
                rows[place] = (id, [f.label for f in found], [f.score for f in found])
    return rows
