"""Exact search: every query against every row, as a matrix product over blocks of queries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

BLOCK = 1 << 24  # scores held at a time


def search(
    vectors: torch.Tensor, removed: torch.Tensor, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k rows of highest inner product for each query, best first, equal scores in row order.

    Args:
        vectors: float32 [n, dim], on the device that computes.
        removed: row numbers that are never found.
        queries: float32 [q, dim].
        k: at most the number of rows that are left.
    """
    n = len(vectors)
    step = max(1, BLOCK // n)
    found = [_block(vectors, removed, queries[start : start + step], k) for start in range(0, len(queries), step)]
    scores = [s for s, _ in found] or [np.zeros((0, k), np.float32)]
    return np.concatenate(scores), np.concatenate([r for _, r in found] or [np.zeros((0, k), np.int64)])


def _block(
    vectors: torch.Tensor, removed: torch.Tensor, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    scores = torch.from_numpy(queries).to(vectors.device) @ vectors.T
    scores[:, removed] = -torch.inf
    # topk takes any of the rows that tie for the last place: look further until none is cut off.
    wide, left = k, len(vectors) - len(removed)
    while True:
        wide = min(2 * wide, left)
        values, rows = scores.topk(wide, dim=1)
        if wide == left or bool((values[:, k - 1] > values[:, -1]).all()):
            return ordered(values.cpu().numpy(), rows.cpu().numpy(), k)


def ordered(
    scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k best columns of [q, m], best first, equal scores in row order."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
