"""A system as files: what it makes of pictures, and the labels' vectors that this is compared with.

    FOLDER/system.json       name, variant, and the classes that it was trained on
    FOLDER/labels.parquet    columns label, vector: of every label that it can name; of several rows the best one counts
    FOLDER/PART.parquet      columns id, labels, features: the pictures of one part (`psdevise.data.features`)

    score(picture, label) = feature · vector

so that any system fits that ends in inner products: DeViSE's embedded pictures with the labels' unit vectors, softmax's
probabilities with unit axes. A folder is complete once its system.json stands, which is written last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from psdevise import scores, store
from psdevise.data import features
from psdevise.data.features import Features
from psdevise.errors import DataError
from psdevise.evaluation.pairing import Pairing
from psdevise.labels import vectors as word_vectors
from psdevise.labels.vectors import WordVectors
from psdevise.systems import Scores

BLOCK = 1 << 23  # scores made at a time


@dataclass(frozen=True)
class Embedded:
    """A system in `folder`; `trained_on` are the classes that its core or its projection saw."""

    folder: str
    name: str
    variant: str
    trained_on: tuple[str, ...]

    @staticmethod
    def open(folder: str) -> Embedded:
        """
        Raises:
            DataError: no whole system in this folder.
        """
        path = store.join(folder, "system.json")
        if not store.exists(path):
            raise DataError("no system here, or a half-written one", where=folder, mend="give the same command again")
        about = store.read_json(path)
        return Embedded(folder, about["name"], about["variant"], tuple(about["trained_on"]))

    def write(self, labels: WordVectors) -> None:
        """Its labels' vectors, and that it is complete: its parts are there by now."""
        word_vectors.save_parquet(labels, store.join(self.folder, "labels.parquet"))
        about = {"name": self.name, "variant": self.variant, "trained_on": list(self.trained_on)}
        store.write_json(store.join(self.folder, "system.json"), about)

    @cached_property
    def labels(self) -> WordVectors:
        return word_vectors.load(store.join(self.folder, "labels.parquet"), repeats=True)

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """label → its rows of `labels`."""
        found: dict[str, list[int]] = {}
        for row, label in enumerate(self.labels.terms):
            found.setdefault(label, []).append(row)
        return found

    def has(self, part: str) -> bool:
        return store.exists(self._part(part))

    def pictures(self, part: str) -> Features:
        return features.read(self._part(part))

    def tie_groups(self, classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Classes whose vectors are equal share a number; one without a vector has its own."""
        known = [i for i, name in enumerate(classes) if name in self._rows]
        groups = np.arange(len(classes), dtype=np.int64) + len(classes)
        if not known:
            return groups
        rows = [self._rows[classes[i]] for i in known]
        owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        groups[known] = scores.tie_groups_of_sets(self.labels.matrix[np.concatenate(rows)], owner)
        return groups

    def blocks(
        self, values: npt.NDArray[np.float32], classes: Sequence[str], pairing: Pairing, groups: npt.NDArray[np.int64]
    ) -> Iterator[Scores]:
        """Scores [some, m] of the pairing's pictures among its candidates, in order, levelled over their tie groups.

        Args:
            values: features [N, width] of all pictures; classes: all of them, which the pairing's columns index.
        """
        columns = [classes[c] for c in pairing.columns]
        known = np.array([i for i, name in enumerate(columns) if name in self._rows], np.int64)
        rows = [self._rows[columns[i]] for i in known]
        several = any(len(r) > 1 for r in rows)
        vectors = self.labels.matrix[np.concatenate([np.zeros(0, np.int64), *map(np.array, rows)]).astype(np.int64)]
        if several:  # a term of several labels is multiplied once, so that they tie exactly where it is their best one
            starts = np.cumsum([0, *(len(r) for r in rows[:-1])])
            vectors, place = np.unique(vectors, axis=0, return_inverse=True)
        turned = np.ascontiguousarray(vectors.T)
        step = max(1, BLOCK // max(len(columns), vectors.shape[0], 1))
        for start in range(0, len(pairing.rows), step):
            found = values[pairing.rows[start : start + step]] @ turned
            if several:
                found = np.maximum.reduceat(found[:, place.reshape(-1)], starts, axis=1)
            if len(known) < len(columns):
                whole = np.full((len(found), len(columns)), -np.inf, np.float32)
                whole[:, known] = found
                found = whole
            yield scores.level(found, groups)

    def _part(self, part: str) -> str:
        return store.join(self.folder, f"{part}.parquet")
