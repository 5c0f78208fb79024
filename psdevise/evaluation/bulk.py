"""Naming a whole data set: Parquet in, Parquet out (id, labels, scores), stopped and continued at will.

OUT.parts/000000000.parquet …   a part for every few thousand pictures, each written whole
OUT                             put together at the end, rows in the order of the input
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from psdevise import store
from psdevise.data import namings
from psdevise.data.pictures import PictureTable, decode
from psdevise.errors import ConfigError, DataError
from psdevise.index.by_label import LabelIndex
from psdevise.labels import vectors as word_vectors
from psdevise.tagger import Tagger, load

BATCH_ROWS = 500


@dataclass(frozen=True)
class Prediction:
    """What is to be named, and how.

    Args:
        labels: the terms to choose from; None: the run's own classes.
        min_score: a picture whose best score is below is named "unknown".
        part_rows: pictures in a part, which is what a stop or a death costs at most.
    """

    table: str
    out: str
    labels: tuple[str, ...] | None = None
    k: int = 5
    min_score: float | None = None
    part_rows: int = 2000


@dataclass(frozen=True)
class LoadTagger:
    """The tagger of the run in a folder that all nodes see, with further vectors of the user's own."""

    run: str
    vectors: str | None = None

    def __call__(self) -> Tagger:
        tagger = load(self.run)
        return tagger if self.vectors is None else tagger.with_vectors(word_vectors.load(self.vectors))


class Bulk:
    """A prediction under way: anybody may name any part, as often as they like; each row is in one part only.

    Args:
        tagger: what names; every process has its own.

    Raises:
        ConfigError: parts of another prediction lie there.
    """

    def __init__(self, tagger: Tagger, prediction: Prediction) -> None:
        self._tagger, self._prediction = tagger, prediction
        self._pictures = PictureTable(prediction.table)
        self._index = tagger.index_of(prediction.labels if prediction.labels is not None else tagger.labels)
        self._folder = prediction.out + ".parts"
        self.rows = self._pictures.rows

    def begin(self) -> list[int]:
        """Claims the folder of parts; the first rows of the parts that are not there yet."""
        wanted = self._prediction
        plan = {
            "table": self._pictures.fingerprint,
            "labels": list(self._index.names),
            "k": wanted.k,
            "min_score": wanted.min_score,
            "part_rows": wanted.part_rows,
        }
        path = store.join(self._folder, "plan.json")
        if store.exists(path) and store.read_json(path) != plan:
            raise ConfigError(
                "parts of another prediction are here", where=self._folder, mend="remove them, or give another --out"
            )
        store.write_json(path, plan)
        there = set(store.listing(self._folder))
        return [start for start in self._starts() if self._part(start).rsplit("/", 1)[1] not in there]

    def name(self, start: int) -> int:
        """Writes the part that begins at row `start`; its rows. A broken picture gets empty lists."""
        stop = min(start + self._prediction.part_rows, self.rows)
        wanted = self._prediction
        rows = _named(self._tagger, self._pictures, self._index, start, stop, wanted.k, wanted.min_score)
        namings.write(self._part(start), rows)
        return stop - start

    def finish(self) -> int:
        """Puts the parts together in the order of the input; the rows written."""
        rows = namings.join(self._prediction.out, [self._part(start) for start in self._starts()])
        store.remove(self._folder)
        return rows

    def _starts(self) -> range:
        return range(0, self.rows, self._prediction.part_rows)

    def _part(self, start: int) -> str:
        return store.join(self._folder, f"{start:09d}.parquet")


def predict_table(tagger: Tagger, prediction: Prediction, on_progress: Callable[[int, int], None]) -> int:
    """Names every picture of the table in this process. Returns the rows written.

    Args:
        on_progress: called with the pictures named, also by an earlier try, and all of them.

    Raises:
        ConfigError: parts of another prediction lie there.
    """
    bulk = Bulk(tagger, prediction)
    left = bulk.begin()
    done = bulk.rows - sum(min(prediction.part_rows, bulk.rows - start) for start in left)
    for start in left:
        done += bulk.name(start)
        on_progress(done, bulk.rows)
    return bulk.finish()


def _named(
    tagger: Tagger, pictures: PictureTable, index: LabelIndex, start: int, stop: int, k: int, min_score: float | None
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
