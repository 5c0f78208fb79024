"""Nearest labels by inner product, exact or through faiss, behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from psdevise import store
from psdevise.errors import ConfigError, DataError, LabelError
from psdevise.index import exact
from psdevise.index.approximate import Candidates, IndexOptions, Method, Progress, set_threads

__all__ = ["Index", "IndexOptions", "Method", "set_threads"]

BATCH = 32  # queries whose proposed rows are gathered at a time


class Index:
    """Labels are added in place; removed ones are masked in every search and dropped by the next `build`.

    Whatever the method, scores are the true inner products: an approximate one only chooses the rows to compare.

    Args:
        names: of the rows.
        vectors: float32 [n, dim], not copied; unit rows make the scores cosines, and only for them are other methods
            than exact.

    Raises:
        LabelError: no label at all, one that stands there twice, another number of names than of vectors, or a value
            that is not finite.
        ConfigError: there is no such device, or no room on it.
    """

    def __init__(
        self,
        names: Sequence[str],
        vectors: npt.NDArray[np.float32],
        options: IndexOptions | None = None,
        on_progress: Progress = lambda done, of: None,
    ) -> None:
        if not len(names):
            raise LabelError("no label to search among", where="index")
        self.options = options or IndexOptions()
        self.names: tuple[str, ...] = ()
        self._rows: dict[str, int] = {}
        self._removed: list[int] = []
        self._held = np.zeros((0, vectors.shape[-1]), np.float32)  # with room behind the last row
        self._candidates: Candidates | None = None
        self._append(names, vectors)
        self.build(on_progress)

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """float32 [len(names), dim], the removed ones among them."""
        return self._held[: len(self.names)]

    def __len__(self) -> int:
        """How many labels can be found."""
        return len(self.names) - len(self._removed)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def add(self, names: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        """Further labels, found from now on.

        Raises:
            LabelError: as when the index is made; nothing is added then.
        """
        first = len(self.names)
        self._append(names, vectors)
        if self._candidates is not None:
            self._candidates.add(self.vectors[first:])
        self._move()

    def remove(self, names: Sequence[str]) -> None:
        """These are not found any more; the other rows keep their numbers until the next `build`.

        Raises:
            LabelError: a label that is not there, or none would be left; nothing is removed then.
        """
        unknown = [name for name in names if name not in self._rows]
        if unknown:
            raise LabelError(f"{unknown[0]!r} is not in the index", where="index")
        if len(set(names)) == len(self):
            raise LabelError("no label would be left to search among", where="index")
        self._removed += [self._rows.pop(name) for name in dict.fromkeys(names)]

    def build(self, on_progress: Progress = lambda done, of: None) -> None:
        """Builds the search structure anew, over the labels that are left; tells how many are in, of how many."""
        if self._removed:
            kept = np.delete(np.arange(len(self.names)), self._removed)
            vectors = self.vectors[kept]
            self.names, self._held, self._removed = tuple(self.names[row] for row in kept), vectors, []
            self._rows = {name: row for row, name in enumerate(self.names)}
        approximate = self.options.method != "exact"
        self._candidates = Candidates(self.vectors, self.options, on_progress) if approximate else None
        self._move()

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The min(k, labels) rows of highest inner product for each query [q, dim]: scores [q, k] and row numbers
        [q, k], best first, equal scores in row order. An approximate method may miss some; where it finds fewer
        than k, what is missing has the score −inf and the row −1.

        Raises:
            LabelError: k is not positive, or the queries have another dimension or a value that is not finite.
        """
        dim = self._held.shape[1]
        if k < 1 or queries.ndim != 2 or queries.shape[1] != dim:
            raise LabelError(f"k = {k}, queries {queries.shape}: needs k ≥ 1 and [q, {dim}]", where="index")
        k = min(k, len(self))
        queries = np.ascontiguousarray(queries, np.float32)
        broken = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(broken):
            raise LabelError(f"query {broken[0]} is not finite", where="index")
        if self._candidates is None and self._on_device is None:
            return exact.search(self.vectors, self._removed, queries, k)
        if self._on_device is not None:
            return exact.search_on_device(self._on_device, self._removed, queries, k)
        parts = [self._compare(queries[start : start + BATCH], k) for start in range(0, len(queries), BATCH)]
        scores = np.concatenate([s for s, _ in parts] or [np.zeros((0, k), np.float32)])
        return scores, np.concatenate([r for _, r in parts] or [np.zeros((0, k), np.int64)])

    def nearest(self, queries: npt.NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
        """The same, by name."""
        scores, rows = self.search(queries, k)
        return [
            [(self.names[r], float(s)) for r, s in zip(row, line, strict=True) if r >= 0]
            for row, line in zip(rows, scores, strict=True)
        ]

    def save(self, path: str) -> None:
        """Parquet with the columns label and vector, which any reader of label vectors takes; of the labels that are
        left. The search structure is built again when it is loaded."""
        kept = np.delete(np.arange(len(self.names)), self._removed)
        vectors = self.vectors[kept]
        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"label": [self.names[row] for row in kept], "vector": rows})
        store.write_atomic(path, lambda f: pq.write_table(table, f))

    @staticmethod
    def load(path: str, options: IndexOptions | None = None) -> Index:
        """
        Raises:
            DataError: not a whole Parquet file with the columns label and vector.
        """
        try:
            with store.open_read(path) as f:
                table = pq.read_table(f, columns=["label", "vector"])
            vectors = table.column("vector").combine_chunks()
            matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
        except (pa.ArrowException, OSError, AttributeError, ValueError) as e:
            raise DataError(f"not an index: {e}", where=path) from e
        return Index(table.column("label").to_pylist(), matrix, options)

    def _compare(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The best of what the approximate search proposes, by their true inner products."""
        assert self._candidates is not None
        rows = self._candidates.propose(queries, k, self._removed)
        scores = (self.vectors[rows] @ queries[:, :, None])[:, :, 0]
        return exact.ordered(np.where(rows < 0, np.float32(-np.inf), scores), rows, k)

    def _append(self, names: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        if len(names) != len(vectors):
            raise LabelError(f"{len(names)} names for {len(vectors)} vectors", where="index")
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self._held.shape[1]:
            raise LabelError(f"vectors {vectors.shape}: needs [n, {self._held.shape[1]}]", where="index")
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise LabelError(f"the vector of {names[broken[0]]!r} is not finite", where="index")
        rows = {name: row for row, name in enumerate(names, len(self.names))}
        if len(rows) < len(names) or not self._rows.keys().isdisjoint(rows):
            twice = next(n for row, n in enumerate(names, len(self.names)) if n in self._rows or rows[n] != row)
            raise LabelError(f"{twice!r} is in the index twice", where="index")
        first, last = len(self.names), len(self.names) + len(names)
        if first == 0:  # not copied, and never written to: what is added later moves all to a place of its own
            self._held = np.require(vectors, requirements=["C", "W"])
        elif last > len(self._held):  # half as much again, so that adding one by one stays cheap
            grown = np.empty((last + first // 2, vectors.shape[1]), np.float32)
            grown[:first] = self.vectors
            self._held = grown
        if first:
            self._held[first:last] = vectors
        self.names += tuple(names)
        self._rows |= rows

    def _move(self) -> None:
        """The rows to the device that compares them, where that is not this one."""
        elsewhere = self.options.method == "exact" and self.options.device != "cpu"
        try:
            self._on_device = torch.from_numpy(self.vectors).to(self.options.device) if elsewhere else None
        except (RuntimeError, AssertionError) as e:  # AssertionError: torch was built without it
            raise ConfigError(
                f"the vectors cannot be moved to {self.options.device!r}: {str(e).splitlines()[0]}",
                where="index",
                mend="cpu, or a device that torch finds here and that has room",
            ) from e
