"""The whole job on a disk that fills up: a clear error, nothing lost, and with room again the same command goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from psdevise.errors import StoreError
from psdevise.events import Event, PhaseFinished
from psdevise.orchestrator.run import execute
from psdevise.report import write
from tests.world import tiny

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small disk")


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes that the undisturbed job takes."""
    folder = tmp_path_factory.mktemp("whole")
    execute(tiny(folder), finish=write)
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets no test mount a disk")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_disk_that_fills_up_is_named_and_nothing_is_lost(disk: Path, size: int, share: float) -> None:
    before: list[Event] = []
    resize(disk, int(share * size))
    with pytest.raises(StoreError, match="no space left"):
        execute(tiny(disk), before.append, finish=write)
    finished = [e.phase for e in before if isinstance(e, PhaseFinished)]
    assert "world" in finished
    resize(disk, 4 * size)
    events: list[Event] = []
    done = execute(tiny(disk), events.append, finish=write)
    assert done.results
    assert [e.phase for e in events if isinstance(e, PhaseFinished) and e.reused] == finished


def resize(disk: Path, nbytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={nbytes}", disk], check=True)
