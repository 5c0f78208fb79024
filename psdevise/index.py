"""Exact nearest labels by inner product, through faiss, behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.errors import DataError, LabelError


class Index:
    """
    Args:
        names: of the rows.
        vectors: float32 [n, dim]; unit rows make the scores cosines.

    Raises:
        LabelError: no label at all, another number of names than of vectors, or a value that is not finite.
    """

    def __init__(self, names: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        if len(names) != len(vectors):
            raise LabelError(f"{len(names)} names for {len(vectors)} vectors", where="index")
        if not len(names):
            raise LabelError("no label to search among", where="index")
        self.names = tuple(names)
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        broken = np.flatnonzero(~np.isfinite(self._vectors).all(axis=1))
        if len(broken):
            raise LabelError(f"the vector of {self.names[broken[0]]!r} is not finite", where="index")
        self._faiss = faiss.IndexFlatIP(self._vectors.shape[1])
        self._faiss.add(self._vectors)

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        return self._vectors[row]

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The k rows of highest inner product for each query [q, dim]: scores [q, k] and row numbers [q, k],
        best first, equal scores in row order.

        Raises:
            LabelError: k is not positive, or the queries have another dimension.
        """
        dim = self._vectors.shape[1]
        if k < 1 or queries.ndim != 2 or queries.shape[1] != dim:
            raise LabelError(f"k = {k}, queries {queries.shape}: needs k ≥ 1 and [q, {dim}]", where="index")
        k = min(k, len(self.names))
        queries = np.ascontiguousarray(queries, np.float32)
        # faiss takes any of the rows that tie for the last place: look further until none is cut off.
        wide = min(k + 1, len(self.names))
        scores, rows = self._faiss.search(queries, wide)
        while wide < len(self.names) and (scores[:, k - 1] == scores[:, -1]).any():
            wide = min(2 * wide, len(self.names))
            scores, rows = self._faiss.search(queries, wide)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1).astype(np.int64)

    def nearest(self, queries: npt.NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
        """The same, by name."""
        scores, rows = self.search(queries, k)
        return [
            [(self.names[r], float(s)) for r, s in zip(row, line, strict=True)]
            for row, line in zip(rows, scores, strict=True)
        ]

    def save(self, path: str) -> None:
        """Parquet with the columns label and vector, which any reader of label vectors takes."""
        rows = pa.FixedSizeListArray.from_arrays(pa.array(self._vectors.reshape(-1)), self._vectors.shape[1])
        table = pa.table({"label": list(self.names), "vector": rows})
        store.write_atomic(path, lambda f: pq.write_table(table, f))

    @staticmethod
    def load(path: str) -> Index:
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
        return Index(table.column("label").to_pylist(), matrix)
