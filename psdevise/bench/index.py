"""Nearest labels: exact and approximate search beside faiss's Flat, over 21,841 and 155,000 labels of 500 dimensions,
with `--full` also 1 million.

Queries are pictures of the labels, at the cosine to them that trained pictures have (COSINE). Speed is of one query at
a time in one thread; `batch` is 256 at a time in all. `--text FILE` brings trained word vectors (any form that
`psdevise data vectors` writes); sizes that the file has not enough for, and all without one, are drawn (`lexicon`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil

from psdevise.bench import machine
from psdevise.bench.lexicon import Vectors, asked, drawn, profile
from psdevise.bench.rounds import Rounds, paired
from psdevise.bench.table import Context, Row
from psdevise.index import Index, IndexOptions, set_threads
from psdevise.labels import vectors as word_vectors
from psdevise.labels.vectors import unit_rows

SIZES, LARGE = (21_841, 155_000), 1_000_000
DIM = 500
COSINE = 0.27  # mean over CIFAR-100's seen test pictures of a trained run, to their own labels
K = 20
QUERIES, BATCH, ROUNDS, TURN_SECONDS = 512, 256, 9, 0.5
FLAT = "faiss Flat"
SYSTEMS = {
    "exact": IndexOptions(),
    FLAT: IndexOptions("flat"),
    "scan": IndexOptions("scan"),
    "scan, short": IndexOptions("scan", compare=40, code_dims=2),
    "ivf_scan": IndexOptions("ivf_scan", compare=80, code_dims=2),
    "hnsw": IndexOptions("hnsw"),
    "ivf": IndexOptions("ivf"),
}


@dataclass
class Built:
    index: Index
    seconds: float
    megabytes: float


def run(context: Context) -> list[Row]:
    trained = None if context.text is None else unit_rows(word_vectors.load(context.text).matrix)
    rows = machine.figures("index")
    for n in (*SIZES, LARGE) if context.full else SIZES:
        rows += _size(n, trained, context)
    return rows


def _size(n: int, trained: Vectors | None, context: Context) -> list[Row]:
    real = trained is not None and len(trained) >= n
    dim = DIM if trained is None else trained.shape[1]
    vectors = trained[:n] if trained is not None and real else drawn(n, dim, context.seed)
    queries = asked(vectors, QUERIES, COSINE, context.seed)
    case = f"{n:,} {'trained' if real else 'drawn'} labels, {dim}d"
    # What the paper names, hashing, is measured once, at the size of its lexicon.
    systems = SYSTEMS | ({"lsh": IndexOptions("lsh", compare=20)} if n == SIZES[1] else {})
    names = [str(i) for i in range(n)]
    built: dict[str, Built] = {}
    for system, options in systems.items():
        built[system] = _build(names, vectors, options, _says(context, f"{case}: building {system}"))
    recall, wrong = _recall({name: b.index for name, b in built.items()}, queries)

    rows = [
        Row("index", case, "the vectors", f"cosine_to_neighbour_{rank}", value, value, value, "1")
        for rank, value in profile(vectors, context.seed).items()
    ]
    for system, one in built.items():
        figures = {"recall_at_20": (recall[system], "1"), "build": (one.seconds, "s"), "memory": (one.megabytes, "MB")}
        for metric, (value, unit) in figures.items():
            rows.append(Row("index", case, system, metric, value, value, value, unit, errors=wrong[system]))
    for many, metric, threads in ((1, "queries_per_second", 1), (BATCH, "batch_queries_per_second", os.cpu_count())):
        set_threads(threads or 1)
        turns: dict[str, Callable[[int], float]] = {
            s: partial(_speed, b.index, queries, many) for s, b in built.items()
        }
        say, of = _says(context, f"{case}: {metric}"), ROUNDS * len(turns)
        found = paired(turns, ROUNDS, lambda done, say=say, of=of: say(done, of))  # type: ignore[misc]
        rows += Rounds(found.values, wrong).rows("index", case, metric, "1/s", "exact")
    return rows


def _build(names: list[str], vectors: Vectors, options: IndexOptions, say: Callable[[int, int], None]) -> Built:
    """An index of all labels in all threads, its build time, and what the process grew by."""
    set_threads(os.cpu_count() or 1)
    before, begin = psutil.Process().memory_info().rss, time.perf_counter()
    index = Index(names, vectors, options, say)
    seconds = time.perf_counter() - begin
    return Built(index, seconds, max(0, psutil.Process().memory_info().rss - before) / 1e6)


def _recall(indexes: dict[str, Index], queries: Vectors) -> tuple[dict[str, float], dict[str, int]]:
    """Share of faiss Flat's nearest 20 that each system finds; and how many of its scores are wrong: an exact search's
    that differ from Flat's, any search's that are not the inner products of what it found."""
    true_scores, _ = indexes[FLAT].search(queries, K)
    recall, wrong = {}, {}
    for system, index in indexes.items():
        scores, rows = index.search(queries, K)
        # What ties with the last of the true ones is as good.
        recall[system] = float((scores >= true_scores[:, -1:] - 1e-6).mean())
        products = np.einsum("qd,qkd->qk", queries, index.vectors[rows])
        bad = np.abs(scores - products)[rows >= 0] > 1e-5
        wrong[system] = int(bad.sum())
        if system in ("exact", FLAT):
            wrong[system] += int((np.abs(scores - true_scores) > 1e-5).sum())
    return recall, wrong


def _speed(index: Index, queries: Vectors, many: int, number: int) -> float:
    """Queries per second, `many` at a time, for at least TURN_SECONDS."""
    done, begin = 0, time.perf_counter()
    while True:
        start = (number * 37 + done) % (len(queries) - many + 1)
        index.search(queries[start : start + many], K)
        done += many
        seconds = time.perf_counter() - begin
        if seconds >= TURN_SECONDS:
            return done / seconds


def _says(context: Context, what: str) -> Callable[[int, int], None]:
    return lambda done, of: context.on_progress(done, of, what)
