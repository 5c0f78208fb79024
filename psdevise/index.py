"""Exact nearest labels by inner product, through faiss, behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt

from psdevise.errors import LabelError


class Index:
    """
    Args:
        names: of the rows.
        vectors: float32 [n, dim]; unit rows make the scores cosines.
    """

    def __init__(self, names: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        if len(names) != len(vectors):
            raise LabelError(f"{len(names)} names for {len(vectors)} vectors", where="index")
        self.names = tuple(names)
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._faiss = faiss.IndexFlatIP(self._vectors.shape[1])
        self._faiss.add(self._vectors)

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        return self._vectors[row]

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The k rows of highest inner product for each query [q, dim]: scores [q, k] and row numbers [q, k],
        best first."""
        k = min(k, len(self.names))
        scores, rows = self._faiss.search(np.ascontiguousarray(queries, np.float32), k)
        return scores, rows.astype(np.int64)

    def nearest(self, queries: npt.NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
        """The same, by name."""
        scores, rows = self.search(queries, k)
        return [
            [(self.names[r], float(s)) for r, s in zip(row, line, strict=True)]
            for row, line in zip(rows, scores, strict=True)
        ]
