from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.errors import ConfigError, DataError, LabelError, StoreError
from psdevise.index import Index, IndexOptions, Method, exact
from psdevise.index.by_label import LabelIndex
from psdevise.labels import vectors as label_vectors

RNG = np.random.default_rng(0)


def test_the_index_finds_what_sorting_finds() -> None:
    vectors = RNG.standard_normal((50, 8)).astype(np.float32)
    queries = RNG.standard_normal((5, 8)).astype(np.float32)
    index = Index([str(i) for i in range(50)], vectors)
    found = index.nearest(queries, 7)
    for query, row in zip(queries, found, strict=True):
        assert [int(name) for name, _ in row] == np.argsort(-(vectors @ query))[:7].tolist()
        assert [score for _, score in row] == pytest.approx(np.sort(vectors @ query)[::-1][:7], abs=1e-5)
    assert len(index.nearest(queries, 99)[0]) == 50


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**31))
def test_equal_scores_stand_in_row_order(n: int, q: int, k: int, seed: int) -> None:
    """Small whole numbers have exact products, so that ties are ties however they are summed."""
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.integers(-1, 2, (size, 3)).astype(np.float32) for size in (n, q))
    scores, rows = Index([str(i) for i in range(n)], vectors).search(queries, k)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(queries @ vectors.T, expected, axis=1))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 10), st.integers(0, 2**31))
def test_on_a_device_it_is_the_same(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.integers(-1, 2, (size, 3)).astype(np.float32) for size in (n, 7))
    removed = rng.choice(n, n // 3, replace=False).tolist()
    k = min(k, n - len(removed))
    here = exact.search(vectors, removed, queries, k)
    there = exact.search_on_device(torch.from_numpy(vectors), removed, queries, k)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


def clustered(n: int, dim: int = 16, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Unit rows around a few centres."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((12, dim))[rng.integers(0, 12, n)] + 0.4 * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["exact", "flat", "scan", "ivf", "ivf_scan"]), st.integers(0, 2**31), st.data())
def test_labels_come_and_go_in_any_order(method: Method, seed: int, data: st.DataObject) -> None:
    """Against a dictionary that is searched by sorting; inverted lists that look at all their cells are exact too."""
    pool = clustered(60, 8, seed)
    index = Index([str(i) for i in range(20)], pool[:20], IndexOptions(method, cells=3, probes=3))
    there, new = set(range(20)), 20
    for step in data.draw(st.lists(st.sampled_from(["add", "remove", "build"]), max_size=8)):
        if step == "add":
            many = data.draw(st.integers(1, 5))
            index.add([str(i) for i in range(new, new + many)], pool[new : new + many])
            there.update(range(new, new + many))
            new += many
        elif step == "remove" and len(there) > 3:
            gone = data.draw(st.lists(st.sampled_from(sorted(there)), min_size=1, max_size=3, unique=True))
            index.remove([str(i) for i in gone])
            there.difference_update(gone)
        else:
            index.build()
            assert sorted(map(int, index.names)) == sorted(there)
    query = clustered(1, 8, seed + 1)
    left = sorted(there)
    best = sorted(left, key=lambda i: -float(pool[i] @ query[0]))[:5]
    found = index.nearest(query, 5)[0]
    assert len(index) == len(there)
    assert [score for _, score in found] == pytest.approx([float(pool[i] @ query[0]) for i in best], abs=1e-5)
    assert {name for name, _ in index.nearest(query, 99)[0]} == set(map(str, left))


@pytest.mark.parametrize(
    ("method", "dim", "together", "recall"),
    [
        ("scan", 16, 1, 0.99),
        ("scan", 15, 2, 0.99),
        ("ivf_scan", 16, 1, 0.95),
        ("ivf_scan", 15, 2, 0.95),
        ("hnsw", 16, 1, 0.98),
        ("ivf", 16, 1, 0.8),
        ("lsh", 16, 1, 0.7),
    ],
)
def test_approximate_search_finds_most_and_scores_what_it_finds_exactly(
    method: Method, dim: int, together: int, recall: float
) -> None:
    vectors, queries = clustered(3000, dim), clustered(50, dim, seed=1)
    names = [str(i) for i in range(3000)]
    options = IndexOptions(method, compare=10, code_dims=together, search_width=200, bits=256)
    index = Index(names[:2000], vectors[:2000], options)
    index.add(names[2000:], vectors[2000:])
    index.remove(gone := names[::10])
    scores, rows = index.search(queries, 20)
    products = queries @ vectors.T
    products[:, ::10] = -np.inf
    true = np.argsort(-products, axis=1)[:, :20]
    shared = sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), true.tolist(), strict=True))
    assert shared >= recall * true.size
    assert not set(gone) & {names[r] for r in rows.reshape(-1)}
    np.testing.assert_allclose(scores, np.take_along_axis(products, rows, axis=1), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_change_that_is_refused_changes_nothing() -> None:
    index = Index(["a", "b"], np.eye(2, dtype=np.float32))
    for act, problem in (
        (lambda: index.add(["c", "b"], np.ones((2, 2), np.float32)), "'b' is in the index twice"),
        (lambda: index.add(["c"], np.ones((1, 3), np.float32)), "needs .n, 2"),
        (lambda: index.remove(["a", "c"]), "'c' is not in the index"),
        (lambda: index.remove(["b", "a"]), "no label would be left"),
    ):
        with pytest.raises(LabelError, match=problem):
            act()
    assert (index.names, len(index)) == (("a", "b"), 2)
    index.remove(["a"])
    index.add(["a"], np.full((1, 2), 3, np.float32))
    assert index.nearest(np.eye(2, dtype=np.float32)[:1], 5) == [[("a", 3.0), ("b", 0.0)]]


def test_an_index_comes_back_from_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "index.parquet")
    before = Index(("pickup truck", "zoë"), RNG.standard_normal((2, 5)).astype(np.float32))
    before.save(path)
    after = Index.load(path)
    assert after.names == before.names
    query = RNG.standard_normal((1, 5)).astype(np.float32)
    assert after.nearest(query, 2) == before.nearest(query, 2)
    np.testing.assert_array_equal(label_vectors.load(path).matrix[1], after.vectors[1])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    with pytest.raises(StoreError, match="no such file"):
        Index.load(str(path))
    pq.write_table(pa.table({"label": ["a"], "other": [[1.0]]}), path)
    with pytest.raises(DataError, match="not an index"):
        Index.load(str(path))
    pq.write_table(pa.table({"label": ["a", "b"], "vector": [[1.0, 2.0], [3.0]]}), path)
    with pytest.raises(DataError, match="not an index"):
        Index.load(str(path))
    pq.write_table(pa.table({"label": ["a"], "vector": ["text"]}), path)
    with pytest.raises(DataError, match="not an index"):
        Index.load(str(path))
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataError, match="not an index"):
        Index.load(str(path))


def test_what_cannot_be_searched_is_refused() -> None:
    ones = np.ones((2, 3), np.float32)
    for names, vectors, problem in (
        (["a"], ones, "1 names for 2 vectors"),
        ([], ones[:0], "no label"),
        (["a", "b"], np.array([[1, 2], [np.nan, 1]], np.float32), "'b' is not finite"),
    ):
        with pytest.raises(LabelError, match=problem):
            Index(names, vectors)
    for queries, k in ((ones[:, :2], 1), (ones[0], 1), (ones, 0)):
        with pytest.raises(LabelError, match="needs k"):
            Index(["a", "b"], ones).search(queries, k)
    ones[1, 2] = np.nan
    for method in get_args(Method):
        with pytest.raises(LabelError, match="query 1 is not finite"):
            Index(["a", "b"], np.eye(2, 3, dtype=np.float32), IndexOptions(method)).search(ones, 1)
    with pytest.raises(ConfigError, match="cannot be moved to 'nowhere'"):
        Index(["a", "b"], np.eye(2, 3, dtype=np.float32), IndexOptions(device="nowhere"))


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("n", [1, 2, 3])
def test_of_a_few_labels_all_are_found(method: Method, n: int) -> None:
    index = Index([str(i) for i in range(n)], clustered(n), IndexOptions(method))
    assert {name for name, _ in index.nearest(clustered(1, seed=1), 9)[0]} == {str(i) for i in range(n)}


def test_only_queries_that_tie_are_looked_at_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of nothing ties with all labels: memory for that is wanted for itself alone."""
    knn, calls = exact.faiss.knn, []

    def counted(queries: np.ndarray, vectors: np.ndarray, k: int, **more: int) -> object:
        calls.append((len(queries), k))
        return knn(queries, vectors, k, **more)

    monkeypatch.setattr(exact.faiss, "knn", counted)
    monkeypatch.setattr(exact, "BLOCK", 512)
    vectors, queries = clustered(300), clustered(50, seed=1)
    queries[[3, 30]] = 0
    scores, rows = exact.search(vectors, [1], queries, 5)
    expected = np.delete(np.arange(300), 1)[
        np.argsort(-np.delete(queries @ vectors.T, 1, axis=1), kind="stable")[:, :5]
    ]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, axis=1), atol=1e-6)
    assert max(k for many, k in calls if many > 2) == 12
    assert all(many * k <= 512 for many, k in calls)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 15), st.integers(0, 2**31))
def test_a_label_of_several_vectors_has_its_best_one_s_score(terms: list[int], k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = {str(i): rng.integers(-1, 2, (n, 3)).astype(np.float32) for i, n in enumerate(terms)}
    queries = rng.integers(-1, 2, (5, 3)).astype(np.float32)
    index = LabelIndex(vectors)
    expected = np.stack([(queries @ rows.T).max(axis=1) for rows in vectors.values()], axis=1)
    np.testing.assert_array_equal(index.scores(queries), expected)
    for found, scores in zip(index.nearest(queries, k), expected, strict=True):
        assert [score for _, score in found] == np.sort(scores)[::-1][:k].tolist()
        assert all(scores[int(name)] == score for name, score in found)
        assert len({name for name, _ in found}) == len(found) == min(k, len(terms))
    with pytest.raises(LabelError, match="no label"):
        LabelIndex({})
