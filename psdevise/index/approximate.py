"""Search that looks at less than all of all rows, through faiss: short codes, a graph, inverted lists, hashes.

Jégou et al. 2011 (product quantisation), in faiss's form that scans 4-bit codes with SIMD; Malkov and Yashunin 2018
(HNSW); Sivic and Zisserman 2003 (inverted lists over k-means cells). Frome et al. 2013, section 4.3, name hashing and
trees as the way to many labels.

Pictures lie far from all labels (a cosine of about .3 to their own), so that a graph or lists must look at many rows to
miss few. `scan` looks at all of them, in codes of a few bits a dimension, `ivf_scan` at those of most lists. They and
`lsh` propose `compare` times as many rows as are wanted, of which `psdevise.index.Index` takes the best by the true
product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt
import torch

from psdevise.config import option

Method = Literal["exact", "scan", "ivf_scan", "hnsw", "ivf", "lsh", "flat"]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
FITTED_ON = 16_000  # rows that codes are made from
FEWEST = 256  # rows that codes are made for
FEWEST_OF_CELL = 16  # rows a cell has on average, unless so many cells are asked for
FITTED_PER_CELL = 32  # rows that the k-means of `ivf_scan` sees
ADDED_AT_A_TIME = 5_000  # between two signs of life


@dataclass(frozen=True)
class IndexOptions:
    method: Method = option(
        "exact",
        "exact: a matrix product; scan: all rows as short codes; ivf_scan: inverted lists of short codes; hnsw: a graph"
        " of near rows; ivf: inverted lists; lsh: hashes; flat: exact through an index of faiss's, what"
        " `psdevise bench index` measures by",
    )
    compare: int = option(8, "scan, ivf_scan, lsh: rows compared by the true product, for each one wanted", low=1)
    code_dims: int = option(
        1,
        "scan, ivf_scan: dimensions of each code of 4 bits; 2 is up to twice as fast, and wants compare: 40 to 80",
        low=1,
        high=8,
    )
    links: int = option(32, "hnsw: links of a row in the graph", low=2)
    build_width: int = option(100, "hnsw: rows looked at for the links of a new one", low=1)
    search_width: int = option(1024, "hnsw: rows kept in sight during a search; more finds more, slower", low=1)
    cells: int = option(0, "ivf, ivf_scan: cells of the k-means; 0: 4 √n, of ivf_scan √n / 2", low=0)
    probes: int = option(0, "ivf, ivf_scan: cells searched; 0: a quarter of them, of ivf_scan two thirds", low=0)
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
        self._index: Any = _make(vectors, options)
        for start in range(0, len(vectors), ADDED_AT_A_TIME):
            self.add(vectors[start : start + ADDED_AT_A_TIME])
            on_progress(self._index.ntotal, len(vectors))

    def add(self, vectors: Floats) -> None:
        self._index.add(self._whole(vectors))

    def propose(self, queries: Floats, k: int, removed: Sequence[int]) -> npt.NDArray[np.int64]:
        """Rows [q, ≥ k] that may be the nearest ones, −1 where there are none and for `removed` ones."""
        queries = self._whole(queries)
        if self._options.method not in ("scan", "ivf_scan", "lsh"):
            found: npt.NDArray[np.int64] = self._index.search(queries, k, params=self._how(k, removed))[1]
            return found
        # These can leave none out, so that as many more are asked for.
        many = min(k * self._options.compare + len(removed), self._index.ntotal)
        rows = self._index.search(queries, many, params=self._how(many, []))[1]
        return np.where(np.isin(rows, removed), -1, rows) if removed else rows

    def _whole(self, vectors: Floats) -> Floats:
        """With dimensions of zeros, up to as many as codes are made of."""
        short = self._index.d - vectors.shape[1]
        return np.pad(vectors, ((0, 0), (0, short))) if short else vectors

    def _how(self, many: int, removed: Sequence[int]) -> Any:
        """faiss's parameters of a search."""
        any_faiss: Any = faiss  # whose stubs lack them
        without = any_faiss.IDSelectorNot(any_faiss.IDSelectorBatch(np.array(removed, np.int64))) if removed else None
        if self._options.method == "hnsw":
            return any_faiss.SearchParametersHNSW(sel=without, efSearch=max(self._options.search_width, many))
        if hasattr(self._index, "nlist"):
            share = 2 / 3 if self._options.method == "ivf_scan" else 1 / 4
            probes = self._options.probes or math.ceil(share * self._index.nlist)
            return any_faiss.SearchParametersIVF(sel=without, nprobe=probes)
        # With parameters, even empty ones, Flat makes no blocked product.
        return any_faiss.SearchParameters(sel=without) if removed else None


def set_threads(n: int) -> None:
    """Of searches and builds, exact and approximate, in this process."""
    faiss.omp_set_num_threads(n)
    torch.set_num_threads(n)


def _make(rows: Floats, options: IndexOptions) -> faiss.Index:
    n, dim = rows.shape
    # Codes are looked at 32 at a time: lists of some thousand rows lose less of that, and their cells point less well.
    wanted = round((0.5 if options.method == "ivf_scan" else 4) * n**0.5)
    cells = min(options.cells or min(wanted, n // FEWEST_OF_CELL) or 1, n)
    if options.method in ("scan", "ivf_scan"):
        return _codes(rows, options.code_dims, cells if options.method == "ivf_scan" else 0)
    if options.method == "flat":
        return faiss.IndexFlatIP(dim)
    if options.method == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, options.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = options.build_width
        return graph
    if options.method == "lsh":
        return faiss.IndexLSH(dim, options.bits)
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    # faiss asks for 39 rows per cell and says so on the terminal where there are fewer.
    lists.cp.min_points_per_centroid = 1
    lists.train(rows)
    return lists


def _codes(rows: Floats, together: int, cells: int) -> faiss.Index:
    """So many dimensions together as one of 16 values, found by k-means; in so many inverted lists, or all in one."""
    n, dim = rows.shape
    codes = -(-dim // together)
    if n < FEWEST:
        return faiss.IndexFlatIP(dim)
    any_faiss: Any = faiss  # whose stubs lack these
    whole = codes * together
    if cells:
        quantizer = faiss.IndexFlatIP(whole)
        index = any_faiss.IndexIVFPQFastScan(quantizer, whole, cells, codes, 4, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = FITTED_PER_CELL
    else:
        index = any_faiss.IndexPQFastScan(whole, codes, 4, faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.min_points_per_centroid = 1
    fitted_on = max(FITTED_ON, FITTED_PER_CELL * cells)
    index.train(np.pad(rows[:: max(1, n // fitted_on)], ((0, 0), (0, whole - dim))))
    return index
