from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.errors import DataError, LabelError, StoreError
from psdevise.index import Index
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


def test_an_index_comes_back_from_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "index.parquet")
    before = Index(("pickup truck", "zoë"), RNG.standard_normal((2, 5)).astype(np.float32))
    before.save(path)
    after = Index.load(path)
    assert after.names == before.names
    query = RNG.standard_normal((1, 5)).astype(np.float32)
    assert after.nearest(query, 2) == before.nearest(query, 2)
    np.testing.assert_array_equal(label_vectors.load(path).matrix[1], after.vector(1))


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
