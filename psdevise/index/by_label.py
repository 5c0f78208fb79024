"""Labels of several vectors each: a label's score is its best vector's, as where terms are drawn in training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from psdevise.index import Index

Floats = npt.NDArray[np.float32]


class LabelIndex:
    """Exact search.

    Args:
        vectors: label → float32 [its terms, dim], at least one; unit rows make the scores cosines.

    Raises:
        LabelError: no label at all, or a value that is not finite.
    """

    def __init__(self, vectors: Mapping[str, Floats]) -> None:
        self.names = tuple(vectors)
        terms = [len(rows) for rows in vectors.values()]
        self._most = max(terms, default=0)
        self._starts = np.cumsum([0, *terms[:-1]])
        self._owner = np.repeat(np.arange(len(terms)), terms)
        rows = np.concatenate(list(vectors.values())) if vectors else np.zeros((0, 0), np.float32)
        self._index = Index([str(row) for row in range(len(rows))], rows)

    def scores(self, queries: Floats) -> Floats:
        """[q, dim] → [q, labels]."""
        products: Floats = queries @ self._index.vectors.T
        return np.maximum.reduceat(products, self._starts, axis=1)

    def nearest(self, queries: Floats, k: int) -> list[list[tuple[str, float]]]:
        """The min(k, labels) labels of highest score for each query, best first, equal scores in their order."""
        k = min(k, len(self.names))
        # So many rows are of k labels at least.
        scores, rows = self._index.search(queries, k * self._most)
        found = []
        for line, owners in zip(scores.tolist(), self._owner[rows].tolist(), strict=True):
            best: dict[int, float] = {}
            for label, score in zip(owners, line, strict=True):
                best.setdefault(label, score)
            found.append([(self.names[label], score) for label, score in list(best.items())[:k]])
        return found
