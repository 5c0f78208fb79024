"""The same job on Ray actors: equal results, deaths survived, clear errors. One local cluster for all."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from psdevise.errors import DeadlineExceeded, Diverged, Interrupted, ResourceError, WorkerLost
from psdevise.events import Event, Progress, Restarted, SnapshotWritten
from psdevise.runtime.job import ClusterOptions, Job, Trained
from psdevise.runtime.training import OnRay
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask
from tests import toy
from tests.runtime.test_keystones import job, single_process

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def train(made: Job, on_event: Callable[[Event], None] = lambda event: None) -> Trained:
    return OnRay().train(made, on_event, threading.Event())


def long_task() -> ModuleTask:
    return toy.task(epochs=60)


def test_one_worker_on_ray_equals_fused_adagrad_bit_for_bit(tmp_path: Path) -> None:
    trained = train(job(tmp_path, cluster=ClusterOptions(num_workers=1, num_shards=2)))
    for name, value in single_process(1, fused=True).items():
        np.testing.assert_array_equal(trained.parameters[name], value)


def test_two_workers_at_staleness_0_equal_the_double_batch(tmp_path: Path) -> None:
    trained = train(job(tmp_path, cluster=ClusterOptions(num_workers=2, num_shards=2)))
    for name, value in single_process(2, fused=True).items():
        np.testing.assert_allclose(trained.parameters[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("victim", ["worker", "shard"])
def test_a_death_is_survived_and_the_audit_adds_up(tmp_path: Path, victim: str) -> None:
    """Killed once a snapshot stands and steps are under way: another incarnation takes over."""
    events: list[Event] = []
    killed: list[int] = []
    made = job(
        tmp_path,
        long_task,
        downpour=DownpourOptions(deadline=30),
        cluster=ClusterOptions(num_workers=2, num_shards=2, snapshot_seconds=0.5, lease_seconds=10),
    )

    def on_event(event: Event) -> None:
        events.append(event)
        if killed or not isinstance(event, Progress) or not any(isinstance(e, SnapshotWritten) for e in events):
            return
        pids = {f.worker: f.gauges.get("pid") for f in event.figures}
        pid = pids.get(1) if victim == "worker" else event.shards[1]["pid"]
        if pid:
            killed.append(int(pid))
            os.kill(int(pid), signal.SIGKILL)

    trained = train(made, on_event)
    restarts = [e for e in events if isinstance(e, Restarted)]
    assert [(e.role, e.rank) for e in restarts] == [(victim, 1)]
    assert trained.audit["finished"] == 60 * toy.ROWS
    assert trained.audit["refused"] == 0
    # What is told of the death is what the ledger has counted; of a shard, what came after the snapshot that it names.
    assert restarts[0].examples == trained.audit["repeated"] or victim == "shard"
    assert ("from snapshot" in restarts[0].reason) == (victim == "shard")
    assert restarts[0].examples <= 60 * toy.ROWS
    # A worker's death repeats at most what it held; a shard's repeats nothing.
    assert trained.audit["repeated"] <= (3 * toy.ROWS // 12 if victim == "worker" else 0)
    assert all(np.isfinite(v).all() for v in trained.parameters.values())


def test_ctrl_c_stops_at_a_slice_and_the_same_job_goes_on_with_other_numbers(tmp_path: Path) -> None:
    interrupt = threading.Event()
    made = job(tmp_path, long_task, downpour=DownpourOptions(), cluster=ClusterOptions(num_workers=2, num_shards=2))

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.figures and event.done > 0.05:
            interrupt.set()

    with pytest.raises(Interrupted):
        OnRay().train(made, stop, interrupt)
    events: list[Event] = []
    other = replace(made, cluster=replace(made.cluster, num_workers=1, num_shards=3))
    trained = train(other, events.append)
    first = next(e for e in events if isinstance(e, Progress))
    assert first.done > 0.05
    assert trained.audit == {"finished": 60 * toy.ROWS, "repeated": 0, "refused": 0}


def test_workers_without_room_hold_nobody_up(tmp_path: Path) -> None:
    """Four CPUs for six workers: a phase begins with two, two more join, and two never come."""
    seen: set[int] = set()

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            seen.update(f.worker for f in event.figures if f.steps)

    cluster = ClusterOptions(num_workers=6, min_workers=2, num_shards=1)
    trained = train(job(tmp_path, long_task, downpour=DownpourOptions(), cluster=cluster), on_event)
    assert trained.audit == {"finished": 60 * toy.ROWS, "repeated": 0, "refused": 0}
    assert {0, 1} <= seen
    assert len(seen) <= 4


def diverging_task() -> ModuleTask:
    task = toy.task()
    original = task._loss
    task._loss = lambda *a: (lambda v, f: (v, f | {"loss": float("nan")}))(*original(*a))
    return task


def test_a_loss_that_is_not_finite_ends_the_run_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="not finite"):
        train(job(tmp_path, diverging_task, cluster=ClusterOptions(num_workers=1)))


def test_what_the_cluster_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="the run asks for 64 CPU, the cluster has 4"):
        train(job(tmp_path, cluster=ClusterOptions(num_workers=64)))
    with pytest.raises(ResourceError, match="1 GPU, the cluster has 0"):
        train(job(tmp_path, cluster=ClusterOptions(num_workers=1, gpus_per_worker=1)))


def dying_task() -> ModuleTask:
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode == ray.WORKER_MODE:
        os._exit(1)
    return toy.task()


def test_a_run_gives_up_after_too_many_deaths(tmp_path: Path) -> None:
    cluster = ClusterOptions(num_workers=1, max_restarts=1)
    with pytest.raises(WorkerLost, match="max_restarts is 1"):
        train(job(tmp_path, dying_task, cluster=cluster))


def test_errors_cross_processes_whole() -> None:
    error = DeadlineExceeded("no answer", where="shard 3", mend="wait")

    @ray.remote
    def fail() -> None:
        raise error

    with pytest.raises(DeadlineExceeded) as caught:
        ray.get(fail.remote())
    assert "shard 3" in str(caught.value)


def test_every_actor_has_a_log_and_an_error_its_traceback(tmp_path: Path) -> None:
    made = job(tmp_path, diverging_task, cluster=ClusterOptions(num_workers=1), logs=str(tmp_path / "logs"))
    with pytest.raises(Diverged):
        train(made)
    found = {path.stem.split("-")[1]: path.read_text().splitlines() for path in (tmp_path / "logs").iterdir()}
    assert set(found) == {"coordinator", "shard", "worker"}
    last = json.loads(found["worker"][-1])
    assert last["text"] == "ended by Diverged"
    assert last["level"] == "error"
    assert "Traceback" in last["error"]
    assert json.loads(found["shard"][0])["text"].startswith("shard 0 stands at version")
