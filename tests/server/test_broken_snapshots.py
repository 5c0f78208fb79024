"""A byte of any file of a snapshot changed, or the file cut off: it is named and the one before is used."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise import store
from psdevise.errors import SnapshotError, StoreError
from psdevise.server import snapshot
from psdevise.server.incarnations import Incarnations
from tests.server.test_snapshot import save, trained

LAYOUT, SHARDS = trained(2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots 1 and 2; the second has newer content."""
    folder = tmp_path_factory.mktemp("whole")
    save(folder, 1, LAYOUT, SHARDS)
    save(folder, 2, LAYOUT, SHARDS)
    return folder


@settings(max_examples=250, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(["manifest.json", "shard-000.safetensors", "shard-001.safetensors"]),
)
def test_any_damage_is_found_and_named(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, name: str
) -> None:
    r, folder = Random(seed), tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    path = folder / "000002" / name
    data = bytearray(path.read_bytes())
    before = bytes(data)
    at = r.randrange(len(data))
    match r.randrange(3):
        case 0:
            del data[at:]
        case 1:
            data[at] ^= 1 << r.randrange(8)
        case _:
            data[at] = r.randrange(256)
    path.write_bytes(bytes(data))
    found = snapshot.last_good(str(folder))
    assert found is not None
    manifest, problems = found
    if manifest["number"] == 2:  # white space in JSON says nothing
        assert name == "manifest.json"
        assert "".join(bytes(data).decode().split()) == "".join(before.decode().split())
    else:
        assert str(path) in problems[0]
    for i, shard in enumerate(SHARDS):
        state = snapshot.load_for(str(folder), manifest, LAYOUT, i)
        for key, value in shard.snapshot().tensors.items():
            np.testing.assert_array_equal(state.tensors[key], value)


def test_before_a_broken_one_comes_the_last_that_can_be_read(tmp_path: Path) -> None:
    save(tmp_path, 1, LAYOUT, SHARDS)
    save(tmp_path, 2, LAYOUT, SHARDS)
    assert snapshot.before(str(tmp_path), 2)["number"] == 1
    with pytest.raises(SnapshotError, match="000001 is broken"):
        snapshot.before(str(tmp_path), 1)


def test_incarnations_are_never_used_twice_though_their_file_is_changed_or_lost(tmp_path: Path) -> None:
    path = tmp_path / "incarnations.json"
    assert Incarnations(str(path)).take(3) == [1, 2, 3]
    assert Incarnations(str(path)).take(2) == [4, 5]
    path.write_text(path.read_text().replace("5", "2", 1))
    with pytest.raises(StoreError, match="checksum"):
        Incarnations(str(path)).take(1)
    path.unlink()
    assert Incarnations(str(path), last=5).take(1) == [6]
    assert store.read_sealed(str(path))["last"] == 6
