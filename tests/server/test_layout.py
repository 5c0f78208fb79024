from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from psdevise.server.layout import Dense, Group, Layout, Table

SHAPES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=0, max_size=6)


def make(shapes: list[tuple[int, int]], shards: int, rows: int = 7) -> Layout:
    dense = tuple(Dense(f"p{i}", s, "a" if i % 2 else "default") for i, s in enumerate(shapes))
    groups = {"default": Group(), "a": Group(rate=0.5, weight_decay=0.1)}
    return Layout(dense=dense, tables=(Table("t", rows, 3),), groups=groups, shards=shards)


@given(SHAPES, st.integers(1, 8))
def test_ranges_cover_the_arena_once_and_are_equal(shapes: list[tuple[int, int]], shards: int) -> None:
    layout = make(shapes, shards)
    ranges = [layout.range(i) for i in range(shards)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == layout.size
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    sizes = [stop - start for start, stop in ranges]
    assert max(sizes) - min(sizes) <= 1


@given(SHAPES, st.integers(1, 8))
def test_segments_keep_every_float_in_its_group(shapes: list[tuple[int, int]], shards: int) -> None:
    layout = make(shapes, shards)
    expected = [p.group for p in layout.dense for _ in range(p.size)]
    found = [s.group for i in range(shards) for s in layout.segments(i) for _ in range(s.stop - s.start)]
    assert found == expected


@given(SHAPES, st.integers(0, 2**31))
def test_flatten_and_views_are_inverse(shapes: list[tuple[int, int]], seed: int) -> None:
    layout = make(shapes, 1)
    rng = np.random.default_rng(seed)
    named = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in layout.dense}
    back = layout.views(layout.flatten(named))
    assert back.keys() == named.keys()
    for name, value in named.items():
        np.testing.assert_array_equal(back[name], value)


@given(st.lists(st.integers(0, 99), unique=True), st.integers(1, 9))
def test_rows_are_dealt_to_one_shard_each(rows: list[int], shards: int) -> None:
    layout = make([], shards, rows=100)
    ids = np.array(sorted(rows), np.int64)
    back = np.full(len(ids), -1)
    for shard, where, numbers in layout.deal(ids):
        assert (numbers < layout.table_rows(layout.tables[0], shard)).all()
        back[where] = numbers * shards + shard
    np.testing.assert_array_equal(back, ids)
    assert sum(layout.table_rows(layout.tables[0], s) for s in range(shards)) == 100


def test_dealt_rows_balance_a_zipf_vocabulary() -> None:
    layout = make([], 4, rows=10_000)
    load = 1 / np.arange(1, 10_001)
    dealt = np.array([load[s::4].sum() for s in range(4)]) / load.sum()
    contiguous = np.array([load[s * 2500 : (s + 1) * 2500].sum() for s in range(4)]) / load.sum()
    assert dealt.max() < 0.34 < 0.8 < contiguous.max()
    assert layout.table_rows(layout.tables[0], 3) == 2500


def test_plain_data_round_trip() -> None:
    layout = make([(2, 3), (4, 1)], 3)
    assert Layout.from_plain(layout.plain()) == layout
