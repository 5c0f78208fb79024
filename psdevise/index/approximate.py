"""Search that looks at less than all of all rows, through faiss: fewer dimensions, a graph, inverted lists, hashes.

Malkov and Yashunin 2018 (HNSW); Sivic and Zisserman 2003 (inverted lists over k-means cells). Frome et al. 2013,
section 4.3, name hashing and trees as the way to many labels.

Pictures lie far from all labels (a cosine of about .3 to their own), so that a graph or lists must look at many rows to
miss few. But word vectors have few effective dimensions: `scan` looks at all rows in `dims` of them. Whatever looks
proposes `compare` times as many rows as are wanted, of which `psdevise.index.Index` takes the best by the true product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt
import torch

from psdevise.config import option

Method = Literal["exact", "scan", "hnsw", "ivf", "lsh", "flat"]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
FITTED_ON = 20_000  # rows
ADDED_AT_A_TIME = 5_000  # between two signs of life


@dataclass(frozen=True)
class IndexOptions:
    method: Method = option(
        "exact",
        "exact: a matrix product; scan: all rows in a few dimensions; hnsw: a graph of near rows; ivf: inverted lists;"
        " lsh: hashes; flat: exact, by faiss",
    )
    dims: int = option(96, "scan, hnsw, ivf: dimensions in which rows are proposed; 0: all", low=0)
    compare: int = option(10, "all but exact and flat: rows compared by the true product, for each one wanted", low=1)
    links: int = option(32, "hnsw: links of a row in the graph", low=2)
    build_width: int = option(100, "hnsw: rows looked at for the links of a new one", low=1)
    search_width: int = option(1024, "hnsw: rows kept in sight during a search; more finds more, slower", low=1)
    cells: int = option(0, "ivf: cells of the k-means; 0: 4 √n", low=0)
    probes: int = option(0, "ivf: cells searched; 0: a quarter of them", low=0)
    bits: int = option(2048, "lsh: bits of a hash", low=8)
    device: str = option("cpu", "exact: where the product is made, e.g. cuda")


class Candidates:
    """A faiss index over rows that are added, never removed: it proposes rows for a query.

    Args:
        vectors: float32 [n, dim], unit rows: the graph's and the cells' distances are inner products.
        on_progress: called with the rows that are in, and all.
    """

    def __init__(self, vectors: Floats, options: IndexOptions, on_progress: Progress) -> None:
        self._options = options
        reduced = options.method in ("scan", "hnsw", "ivf") and 0 < options.dims < vectors.shape[1] - 1
        self._axes = _axes(vectors, options.dims) if reduced else None
        rows = self._rows(vectors)
        self._index: Any = _make(rows, options)
        for start in range(0, len(rows), ADDED_AT_A_TIME):
            self._index.add(rows[start : start + ADDED_AT_A_TIME])
            on_progress(self._index.ntotal, len(rows))

    def add(self, vectors: Floats) -> None:
        self._index.add(self._rows(vectors))

    def propose(self, queries: Floats, k: int, removed: Sequence[int]) -> npt.NDArray[np.int64]:
        """Rows [q, ≥ k] that may be the nearest ones, −1 where there are none and for `removed` ones."""
        method = self._options.method
        if self._axes is not None:
            queries = np.concatenate([queries @ self._axes, np.zeros((len(queries), 1), np.float32)], axis=1)
        many = min(k if method == "flat" else k * self._options.compare, self._index.ntotal)
        if method == "lsh":  # which cannot leave any out
            rows = self._index.search(queries, min(many + len(removed), self._index.ntotal))[1]
            return np.where(np.isin(rows, removed), -1, rows) if removed else rows
        found: npt.NDArray[np.int64] = self._index.search(queries, many, params=self._how(many, removed))[1]
        return found

    def _how(self, many: int, removed: Sequence[int]) -> Any:
        """faiss's parameters of a search."""
        any_faiss: Any = faiss  # whose stubs lack them
        without = any_faiss.IDSelectorNot(any_faiss.IDSelectorBatch(np.array(removed, np.int64))) if removed else None
        if self._options.method == "hnsw":
            return any_faiss.SearchParametersHNSW(sel=without, efSearch=max(self._options.search_width, many))
        if self._options.method == "ivf":
            probes = self._options.probes or max(1, self._index.nlist // 4)
            return any_faiss.SearchParametersIVF(sel=without, nprobe=probes)
        return any_faiss.SearchParameters(sel=without)

    def _rows(self, vectors: Floats) -> Floats:
        """Where they lie on the axes; one more coordinate keeps their length, and is 0 in queries."""
        if self._axes is None:
            return vectors
        seen = vectors @ self._axes
        rest = np.maximum((vectors**2).sum(axis=1) - (seen**2).sum(axis=1), 0.0)
        return np.concatenate([seen, np.sqrt(rest)[:, None]], axis=1)


def set_threads(n: int) -> None:
    """Of searches and builds, exact and approximate, in this process."""
    faiss.omp_set_num_threads(n)
    torch.set_num_threads(n)


def _axes(vectors: Floats, dims: int) -> Floats:
    """The directions [dim, dims] that keep most of the inner products: the first eigenvectors of Σ x xᵀ."""
    step = max(1, len(vectors) // FITTED_ON)
    sample = vectors[::step].astype(np.float64)
    return np.ascontiguousarray(np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :dims], np.float32)


def _make(rows: Floats, options: IndexOptions) -> faiss.Index:
    n, dim = rows.shape
    if options.method in ("flat", "scan"):
        return faiss.IndexFlatIP(dim)
    if options.method == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, options.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = options.build_width
        return graph
    if options.method == "lsh":
        return faiss.IndexLSH(dim, options.bits)
    cells = min(options.cells or max(1, round(4 * n**0.5)), n)
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    # faiss asks for 39 rows per cell and says so on the terminal where there are fewer.
    lists.cp.min_points_per_centroid = 1
    lists.train(rows)
    return lists
