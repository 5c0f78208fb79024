"""Exact search: every query against every row, as a blocked matrix product; by faiss on a CPU, by torch elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
Found = tuple[Floats, npt.NDArray[np.int64]]
BLOCK = 1 << 24  # scores that are held at a time


def search(vectors: Floats, removed: Sequence[int], queries: Floats, k: int) -> Found:
    """The k rows of highest inner product for each query, best first, equal scores in row order.

    Args:
        vectors: float32 [n, dim], read where they lie.
        removed: row numbers that are never found.
        queries: float32 [q, dim].
        k: at most the number of rows that are left.
    """
    any_faiss: Any = faiss  # whose stubs lack knn
    best = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    waiting, wide = np.arange(len(queries)), k + len(removed)
    while len(waiting):
        # Any of the rows that tie for the last place are found: look further until none is cut off.
        wide = min(2 * wide, len(vectors))
        step = max(1, BLOCK // wide)
        further = []
        for asked in (waiting[start : start + step] for start in range(0, len(waiting), step)):
            scores, rows = any_faiss.knn(queries[asked], vectors, wide, metric=faiss.METRIC_INNER_PRODUCT)
            last = scores[:, -1]
            if removed:
                scores = np.where(np.isin(rows, removed), np.float32(-np.inf), scores)
            best[0][asked], best[1][asked] = ordered(scores, rows, k)
            further.append(asked[best[0][asked, -1] <= last])
        waiting = np.concatenate(further) if wide < len(vectors) else waiting[:0]
    return best


def search_on_device(vectors: torch.Tensor, removed: Sequence[int], queries: Floats, k: int) -> Found:
    """The same for vectors on any device, which makes the product."""
    step = max(1, BLOCK // len(vectors))
    parts = [_block(vectors, removed, queries[start : start + step], k) for start in range(0, len(queries), step)]
    scores = np.concatenate([s for s, _ in parts] or [np.zeros((0, k), np.float32)])
    return scores, np.concatenate([r for _, r in parts] or [np.zeros((0, k), np.int64)])


def _block(vectors: torch.Tensor, removed: Sequence[int], queries: Floats, k: int) -> Found:
    scores = torch.from_numpy(queries).to(vectors.device) @ vectors.T
    scores[:, torch.tensor(removed, dtype=torch.int64, device=vectors.device)] = -torch.inf
    wide, left = k, len(vectors) - len(removed)
    while True:
        wide = min(2 * wide, left)
        values, rows = scores.topk(wide, dim=1)
        if wide == left or bool((values[:, k - 1] > values[:, -1]).all()):
            return ordered(values.cpu().numpy(), rows.cpu().numpy(), k)


def ordered(scores: Floats, rows: npt.NDArray[np.int64], k: int) -> Found:
    """The k best columns of [q, m], best first, equal scores in row order."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
