"""Real processes that die in the middle: staleness 0, stopped and resumed, equals undisturbed bit for bit; of what was
killed nothing is left; a broken snapshot, a lost coordinator and a poisonous worker are named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from psdevise import store
from psdevise.errors import Interrupted, WorkerLost
from psdevise.events import Event, Notice, Progress, Restarted, SnapshotWritten
from psdevise.runtime import progress
from psdevise.runtime.job import ClusterOptions, Job
from psdevise.runtime.training import OnRay
from psdevise.server import snapshot
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask
from psdevise.worker.replica import Replica
from tests import toy
from tests.runtime.test_keystones import job

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
CLUSTER = ClusterOptions(num_workers=3, num_shards=2, snapshot_seconds=0.5)


def task() -> ModuleTask:
    return toy.task(epochs=16, slices=32)


def made(folder: Path) -> Job:
    return job(folder, task, downpour=DownpourOptions(staleness=0), cluster=CLUSTER)


def last(made: Job) -> tuple[dict[str, np.ndarray], dict[str, Any], set[int]]:
    """All that the last snapshot holds: arrays by shard and name, the ledger, the shards' updates."""
    found = snapshot.last_good(made.snapshots)
    assert found is not None
    states = snapshot.load_all(made.snapshots, found[0])
    arrays = {f"{i}.{name}": value for i, state in enumerate(states) for name, value in state.tensors.items()}
    return arrays, found[0]["coordinator"]["ledger"], {s.version.counter for s in states}


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Job:
    found = made(tmp_path_factory.mktemp("undisturbed"))
    OnRay().train(found, lambda event: None, threading.Event())
    return found


def assert_equal(one: Job, other: Job) -> None:
    arrays, ledger, updates = last(one)
    expected, expected_ledger, expected_updates = last(other)
    assert len(updates) == 1, "all shards stand at the same step"
    assert updates == expected_updates
    assert arrays.keys() == expected.keys()
    assert any("optimizer." in name for name in arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert ledger == expected_ledger


def test_ctrl_c_and_resume(undisturbed: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    stopped, interrupt = made(tmp_path), threading.Event()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 0.2:
            interrupt.set()

    with pytest.raises(Interrupted):
        OnRay().train(stopped, stop, interrupt)
    _, ledger, updates = last(stopped)
    assert len(updates) == 1
    assert 0 < ledger["audit"]["finished"] < 16 * toy.ROWS
    OnRay().train(stopped, lambda event: None, threading.Event())
    assert_equal(stopped, undisturbed)


DRIVER = """
import sys, threading
from pathlib import Path
from psdevise.events import Progress, SnapshotWritten
from psdevise.runtime.training import OnRay
from tests.runtime.test_resumed import made

def tell(event):
    if isinstance(event, SnapshotWritten):
        print("snapshot", event.number, flush=True)
    if isinstance(event, Progress) and event.shards:
        print("pids", *[int(s["pid"]) for s in event.shards],
              *[int(f.gauges["pid"]) for f in event.figures if "pid" in f.gauges], flush=True)

OnRay().train(made(Path(sys.argv[1])), tell, threading.Event())
"""


def test_a_killed_driver_and_resume(undisturbed: Job, tmp_path: Path) -> None:
    """It dies once a snapshot of its own stands."""
    names = set(os.listdir("/dev/shm"))
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]  # with a Ray of its own
    paths = os.pathsep.join(p for p in sys.path if p)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}) as driver:
        pids: set[int] = set()
        snapshots = 0
        assert driver.stdout is not None
        for line in driver.stdout:
            kind, *rest = line.split()
            snapshots += kind == "snapshot"
            if kind == "pids":
                pids |= {int(p) for p in rest}
            if snapshots and pids:
                break
        driver.kill()
    assert snapshots
    stopped = made(tmp_path)
    _, ledger, updates = last(stopped)
    assert len(updates) == 1
    assert ledger["audit"]["finished"] < 16 * toy.ROWS
    OnRay().train(stopped, lambda event: None, threading.Event())
    assert_equal(stopped, undisturbed)
    # Of the dead driver's shards and workers, and of their shared memory, nothing is left.
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], timeout=30)
    assert not alive
    left = set(os.listdir("/dev/shm")) - names
    assert not [name for name in left if "psdevise" in name]


def test_a_dead_coordinator_is_a_clear_error(tmp_path: Path) -> None:
    found = replace(made(tmp_path), downpour=DownpourOptions(deadline=20), logs=str(tmp_path / "logs"))
    killed: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, SnapshotWritten) and not killed:
            killed.extend(p.pid for p in psutil.Process().children(recursive=True) if "CoordinatorActor" in _name(p))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerLost, match=r"test/toy/coordinator: its process is gone(.|\n)*same command again"):
        OnRay().train(found, on_event, threading.Event())
    assert killed


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_shard_whose_newest_file_is_broken_takes_the_one_before(tmp_path: Path) -> None:
    events: list[Event] = []
    cluster = ClusterOptions(num_workers=2, num_shards=2, snapshot_seconds=0.5, lease_seconds=20)
    found = job(tmp_path, lambda: toy.task(epochs=40), downpour=DownpourOptions(deadline=30), cluster=cluster)
    broken: list[int] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, SnapshotWritten) and event.number == 3:
            path = Path(snapshot.shard_path(found.snapshots, 3, 1))
            path.write_bytes(path.read_bytes()[:-7])
            broken.append(int(next(e for e in reversed(events) if isinstance(e, Progress)).shards[1]["pid"]))
            os.kill(broken[0], signal.SIGKILL)

    trained = OnRay().train(found, on_event, threading.Event())
    texts = json.dumps([str(e) for e in events])
    assert broken
    assert "shard-001.safetensors" in texts
    assert "from snapshot 2" in texts
    assert trained.audit == {"finished": 40 * toy.ROWS, "repeated": 0, "refused": 0}
    assert store.exists(found.snapshots)


class Poisonous(ModuleTask):
    """The first process that trains sends gradients that are not finite."""

    def __init__(self, flag: str) -> None:
        vars(self).update(vars(toy.task(epochs=20)))
        self._flag = flag
        self._poisons: bool | None = None

    def gradient(self, replica: Replica, *arguments: Any) -> Any:
        found = super().gradient(replica, *arguments)
        if self._poisons is None:
            try:
                os.close(os.open(self._flag, os.O_CREAT | os.O_EXCL))
                self._poisons = True
            except FileExistsError:
                self._poisons = False
        if self._poisons:
            replica.gradient[3] = float("nan")
        return found


def test_a_worker_that_sends_poison_is_named_and_replaced(tmp_path: Path) -> None:
    events: list[Event] = []
    cluster = ClusterOptions(num_workers=2, num_shards=2, max_bad_gradients=5)
    found = job(tmp_path, partial(Poisonous, str(tmp_path / "flag")), downpour=DownpourOptions(), cluster=cluster)
    trained = OnRay().train(found, events.append, threading.Event())
    (restart,) = [e for e in events if isinstance(e, Restarted)]
    assert restart.role == "worker"
    assert "gradients were refused, the last: the gradient is not finite" in restart.reason
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert any(f"refused a gradient of worker {restart.rank}: the gradient is not finite" in text for text in notices)
    assert trained.audit["finished"] == 20 * toy.ROWS
    assert trained.audit["repeated"] == restart.examples
    assert all(np.isfinite(v).all() for v in trained.parameters.values())
