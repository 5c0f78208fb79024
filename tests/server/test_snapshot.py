from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.errors import SnapshotError
from psdevise.server import snapshot
from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Gradient, Identity
from psdevise.server.shard import Shard

LAYOUT = Layout(dense=(Dense("w", (3, 5)), Dense("b", (4,))), tables=(Table("t", 7, 2),), buffers=(Dense("m", (2,)),))
OPTIONS = OptimizerOptions(rate=0.1)


def trained(shards: int) -> tuple[Layout, list[Shard]]:
    layout = replace(LAYOUT, shards=shards)
    rng = np.random.default_rng(0)
    named = {
        n: rng.standard_normal(s).astype(np.float32) for n, s in (("w", (3, 5)), ("b", 4), ("t", (7, 2)), ("m", 2))
    }
    states = snapshot.initial(layout, named)
    made = [Shard(layout, i, OPTIONS, 1, s) for i, s in enumerate(states)]
    g = rng.standard_normal(19).astype(np.float32)
    for i, shard in enumerate(made):
        rows = np.arange(layout.table_rows(layout.tables[0], i))
        part = Gradient(g[slice(*layout.range(i))], {"t": (rows, np.ones((len(rows), 2), np.float32))})
        shard.push(part, Identity(0, 1, 0, 0), shard.version)
    return layout, made


def save(folder: Path, number: int, layout: Layout, shards: list[Shard]) -> None:
    checksums = [snapshot.write_shard(snapshot.shard_path(str(folder), number, s.index), s.snapshot()) for s in shards]
    snapshot.commit(str(folder), number, {"layout": layout.plain(), "checksums": checksums, "coordinator": None})


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5))
def test_a_snapshot_loads_at_any_shard_count_with_its_optimizer_state(m: int, n: int) -> None:
    layout, shards = trained(m)
    states = [s.snapshot() for s in shards]
    other = replace(LAYOUT, shards=n)
    recut = snapshot.recut(layout, states, other)
    before, after = snapshot.gather(layout, states), snapshot.gather(other, recut)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    for key in ("optimizer.sum", "sums.t"):
        assert sum(s.tensors[key].size for s in recut) == sum(s.tensors[key].size for s in states)
    if m != n:
        assert all(not s.answered for s in recut)
        again = snapshot.recut(other, recut, layout)
        for one, two in zip(states, again, strict=True):
            for key, value in one.tensors.items():
                np.testing.assert_array_equal(two.tensors[key], value)


def test_files_round_trip_and_the_last_two_are_kept(tmp_path: Path) -> None:
    layout, shards = trained(2)
    for number in (1, 2, 3):
        save(tmp_path, number, layout, shards)
    assert snapshot.numbers(str(tmp_path)) == [2, 3]
    found = snapshot.last_good(str(tmp_path))
    assert found is not None
    manifest, problems = found
    assert (manifest["number"], problems) == (3, [])
    state = snapshot.load_for(str(tmp_path), manifest, layout, 1)
    expected = shards[1].snapshot()
    assert state.version == expected.version
    assert state.answered == expected.answered
    for key, value in expected.tensors.items():
        np.testing.assert_array_equal(state.tensors[key], value)


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "manifest"])
def test_a_broken_snapshot_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    layout, shards = trained(2)
    save(tmp_path, 1, layout, shards)
    save(tmp_path, 2, layout, shards)
    path = Path(snapshot.shard_path(str(tmp_path), 2, 1))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "flip":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    elif damage == "missing":
        path.unlink()
    else:
        path = Path(snapshot.manifest_path(str(tmp_path), 2))
        path.write_text(path.read_text()[:20])
    found = snapshot.last_good(str(tmp_path))
    assert found is not None
    assert found[0]["number"] == 1
    assert str(path) in found[1][0]


def test_when_no_snapshot_is_whole_the_error_names_them(tmp_path: Path) -> None:
    layout, shards = trained(1)
    save(tmp_path, 1, layout, shards)
    path = Path(snapshot.shard_path(str(tmp_path), 1, 0))
    path.write_bytes(b"not safetensors")
    with pytest.raises(SnapshotError, match="shard-000"):
        snapshot.last_good(str(tmp_path))


def test_an_uncommitted_snapshot_does_not_count(tmp_path: Path) -> None:
    layout, shards = trained(1)
    save(tmp_path, 1, layout, shards)
    snapshot.write_shard(snapshot.shard_path(str(tmp_path), 2, 0), shards[0].snapshot())
    assert snapshot.numbers(str(tmp_path)) == [1]


def test_another_models_snapshot_is_refused(tmp_path: Path) -> None:
    layout, shards = trained(1)
    save(tmp_path, 1, layout, shards)
    manifest, _ = snapshot.last_good(str(tmp_path)) or ({}, [])
    other = Layout(dense=(Dense("w", (3, 6)),))
    with pytest.raises(SnapshotError, match="other parameters"):
        snapshot.load_for(str(tmp_path), manifest, other, 0)
