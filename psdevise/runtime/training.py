"""One phase on Ray: from its last snapshot to its parameters, through deaths and Ctrl-C.

snapshot ─► coordinator, shards, workers ─► watch (progress, snapshots, restarts) ─► parameters
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from psdevise.errors import DeadlineExceeded, Interrupted, PsdeviseError, ResourceError, WorkerLost
from psdevise.events import Listener, Notice, Restarted, SnapshotWritten
from psdevise.runtime.actors import ShardActor, WorkerActor
from psdevise.runtime.cluster import check_resources, connect
from psdevise.runtime.coordinator_actor import CoordinatorActor
from psdevise.runtime.incarnations import Incarnations
from psdevise.runtime.job import Interrupt, Job, Trained
from psdevise.runtime.progress import Meter
from psdevise.runtime.states import Start, begin_phase
from psdevise.server import snapshot
from psdevise.server.layout import Layout
from psdevise.worker.downpour import make_device
from psdevise.worker.effects import Replaced

POLL_SECONDS = 0.25


class OnRay:
    """Trains jobs on the Ray cluster that this process has joined or started."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained:
        connect(job.cluster, namespace="psdevise")
        check_resources(job.cluster)
        phase = _Phase(job, on_event)
        try:
            phase.start()
            return phase.watch(interrupt)
        finally:
            phase.end()


@dataclass
class _WorkerLife:
    rank: int
    incarnation: int
    handle: Any
    result: Any


class _Phase:
    """The actors of one phase and their lives."""

    def __init__(self, job: Job, on_event: Listener) -> None:
        self._job, self._on_event = job, on_event
        task = job.build()
        self._layout: Layout = replace(task.layout, shards=job.cluster.num_shards)
        self._slices, self._epochs = list(task.slices), task.epochs
        self._incarnations = Incarnations(job.incarnations)
        self._start: Start = begin_phase(job, self._layout, task.initial)
        self._manifest = self._start.manifest
        self._number = self._start.number
        self._namespace = "psdevise"
        self._meter = Meter(job, on_event, task.epochs)
        self._shards: list[Any] = []
        self._names: list[str] = []
        self._workers: dict[int, _WorkerLife] = {}
        self._coordinator: Any = None
        self._restarts = 0
        for problem in self._start.problems:
            on_event(Notice(job.phase, f"a snapshot is broken, the one before it is used: {problem}"))

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        job, cluster = self._job, self._job.cluster
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(num_cpus=0, name=self._name("coordinator"), namespace=self._namespace)
            .remote(
                self._slices,
                self._epochs,
                job.seed,
                cluster.lease_seconds,
                job.downpour.bound,
                job.downpour.warm_start,
                cluster.num_workers,
                self._start.coordinator,
            )
        )
        incarnations = self._incarnations.take(self._layout.shards)
        self._shards = [self._make_shard(i, n) for i, n in enumerate(incarnations)]
        self._names = [self._name(f"shard-{i}-{n}") for i, n in enumerate(incarnations)]
        self._placed([s.stats.remote() for s in self._shards], "shards")
        ray.get(self._coordinator.announce.remote(self._names))
        for rank, incarnation in enumerate(self._incarnations.take(cluster.num_workers)):
            self._make_worker(rank, incarnation)
        self._placed([w.handle.where.remote() for w in self._workers.values()], "workers")
        for life in self._workers.values():
            self._run_worker(life)

    def watch(self, interrupt: Interrupt) -> Trained:
        """Until all workers have ended; replaces what dies and writes snapshots on the way."""
        cluster = self._job.cluster
        last_snapshot = time.monotonic()
        stopping = False
        while self._workers:
            if interrupt.is_set() and not stopping:
                stopping = True
                self._on_event(Notice(self._job.phase, "stopping at the end of the slices under way"))
                ray.get(self._coordinator.stop.remote())
            self._reap(stopping)
            status = ray.get(self._coordinator.status.remote(), timeout=self._job.downpour.deadline)
            self._meter.show(status, self._shard_stats())
            self._replace_silent()
            if time.monotonic() - last_snapshot > cluster.snapshot_seconds:
                self._save()
                last_snapshot = time.monotonic()
        self._save()
        status = ray.get(self._coordinator.status.remote())
        self._meter.show(status, self._shard_stats(), last=True)
        if not status["done"]:
            if interrupt.is_set():
                raise Interrupted("stopped by the user", mend="give the same command again to go on")
            raise WorkerLost("all workers ended before the data did", where=self._job.phase)
        states = ray.get([s.dense.remote() for s in self._shards], timeout=self._job.downpour.deadline)
        return Trained(snapshot.gather(self._layout, states), status["audit"], self._meter.bill())

    def end(self) -> None:
        handles = [*(w.handle for w in self._workers.values()), *self._shards, self._coordinator]
        for handle in handles:
            if handle is not None:
                ray.kill(handle)

    # ------------------------------------------------------------------ actors

    def _name(self, role: str) -> str:
        return f"{self._job.run}/{self._job.phase}/{role}"

    def _make_shard(self, index: int, incarnation: int) -> Any:
        job = self._job
        return (
            ray.remote(ShardActor)
            .options(
                num_cpus=job.cluster.cpus_per_shard,
                name=self._name(f"shard-{index}-{incarnation}"),
                namespace=self._namespace,
                max_task_retries=0,
            )
            .remote(self._layout, index, job.optimizer, job.lag, incarnation, self._start.folder, self._manifest)
        )

    def _make_worker(self, rank: int, incarnation: int) -> None:
        cluster = self._job.cluster
        gpu_workers = cluster.num_workers if cluster.gpu_workers is None else cluster.gpu_workers
        handle = (
            ray.remote(WorkerActor)
            .options(
                num_cpus=cluster.cpus_per_worker,
                num_gpus=cluster.gpus_per_worker if rank < gpu_workers else 0,
                name=self._name(f"worker-{rank}-{incarnation}"),
                namespace=self._namespace,
            )
            .remote(rank, incarnation, int(cluster.cpus_per_worker))
        )
        self._workers[rank] = _WorkerLife(rank, incarnation, handle, None)

    def _run_worker(self, life: _WorkerLife) -> None:
        job = self._job
        gpu_workers = job.cluster.num_workers if job.cluster.gpu_workers is None else job.cluster.gpu_workers
        gpus = job.cluster.gpus_per_worker if life.rank < gpu_workers else 0
        ray.get(self._coordinator.ask.remote("join", life.rank, life.incarnation))
        life.result = life.handle.run.remote(
            job.build,
            self._layout,
            job.downpour,
            job.optimizer,
            (job.seed, job.phase_number),
            self._namespace,
            self._coordinator,
            job.cluster.read_ahead,
            make_device(gpus) if gpus <= 0 else "cuda",
        )

    def _placed(self, refs: list[Any], role: str) -> None:
        timeout = self._job.cluster.start_timeout
        try:
            ray.get(refs, timeout=timeout)
        except GetTimeoutError as e:
            free = {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}
            raise ResourceError(
                f"the {role} were not placed within {timeout:g} s; free now: {free}",
                where=self._job.phase,
                mend="lower cluster.num_workers or raise cluster.start_timeout",
            ) from e
        except RayTaskError as e:
            raise _cause(e) from e
        except RayActorError as e:
            raise _cause(e) from e

    # ------------------------------------------------------------------ deaths

    def _reap(self, stopping: bool) -> None:
        results = {life.result: life for life in self._workers.values()}
        ended, _ = ray.wait(list(results), num_returns=len(results), timeout=POLL_SECONDS)
        for ref in ended:
            life = results[ref]
            try:
                self._peak("worker", ray.get(ref)["peak_bytes"])
                del self._workers[life.rank]
                ray.kill(life.handle)
            except RayTaskError as e:
                cause = _cause(e)
                if not isinstance(cause, Replaced):
                    raise cause from e
                self._replace(life, "its lease ran out", stopping)
            except RayError as e:
                self._replace(life, str(e).splitlines()[0], stopping)

    def _replace_silent(self) -> None:
        for rank, incarnation in ray.get(self._coordinator.expire.remote()):
            life = self._workers.get(rank)
            if life is not None and life.incarnation == incarnation:
                self._replace(life, "its lease ran out", stopping=False)

    def _replace(self, life: _WorkerLife, reason: str, stopping: bool) -> None:
        turn = ray.get(self._coordinator.ask.remote("leave", life.rank, life.incarnation))
        if turn is not None:
            ray.get([s.amend.remote(turn) for s in self._shards])
        ray.kill(life.handle)
        del self._workers[life.rank]
        if stopping:
            return
        self._count_restart(f"worker {life.rank}: {reason}")
        incarnation = self._incarnations.take(1)[0]
        ray.get([s.admit.remote(life.rank, incarnation) for s in self._shards])
        self._make_worker(life.rank, incarnation)
        self._run_worker(self._workers[life.rank])
        self._on_event(Restarted(self._job.phase, "worker", life.rank, incarnation, reason))

    def _shard_stats(self) -> list[dict[str, Any]]:
        """Figures of every shard; one that has died is restored from the last snapshot on the way."""
        refs = [s.stats.remote() for s in self._shards]
        stats = []
        for index, ref in enumerate(refs):
            try:
                found = ray.get(ref, timeout=self._job.downpour.deadline)
            except GetTimeoutError as e:
                raise DeadlineExceeded(
                    f"no answer within {self._job.downpour.deadline:g} s", where=self._name(f"shard-{index}")
                ) from e
            except RayTaskError as e:
                raise _cause(e) from e
            except RayError as e:
                found = self._revive(index, str(e).splitlines()[0])
            self._peak("shard", found["peak_bytes"])
            stats.append(found)
        return stats

    def _revive(self, index: int, reason: str) -> dict[str, Any]:
        self._count_restart(f"shard {index}: {reason}")
        incarnation = self._incarnations.take(1)[0]
        handle = self._make_shard(index, incarnation)
        self._placed([handle.stats.remote()], f"shard {index}")
        self._shards[index] = handle
        for life in self._workers.values():
            ray.get(handle.admit.remote(life.rank, life.incarnation))
        self._names[index] = self._name(f"shard-{index}-{incarnation}")
        ray.get(self._coordinator.announce.remote(self._names))
        self._on_event(Restarted(self._job.phase, "shard", index, incarnation, reason))
        return dict(ray.get(handle.stats.remote()))

    def _count_restart(self, what: str) -> None:
        self._restarts += 1
        if self._restarts > self._job.cluster.max_restarts:
            raise WorkerLost(
                f"{self._restarts} deaths, cluster.max_restarts is {self._job.cluster.max_restarts}; the last: {what}",
                where=self._job.phase,
            )

    # ------------------------------------------------------------------ snapshots

    def _save(self) -> None:
        """The ledger first: what finishes meanwhile is repeated after a resume, never lost."""
        begin = time.monotonic()
        if self._job.downpour.bound == 0 and not self._at_boundary():
            return
        try:
            state = ray.get(self._coordinator.state.remote())
            number = self._number + 1
            paths = [snapshot.shard_path(self._start.folder, number, i) for i in range(len(self._shards))]
            checksums = ray.get([s.save.remote(p) for s, p in zip(self._shards, paths, strict=True)])
            manifest = {"layout": self._layout.plain(), "checksums": checksums, "coordinator": state}
            snapshot.commit(self._start.folder, number, manifest)
        except RayTaskError as e:
            raise _cause(e) from e
        except RayActorError:
            return  # a shard died meanwhile: the last snapshot stays the good one
        finally:
            ray.get(self._coordinator.pause.remote(False))
        self._number, self._manifest = number, manifest | {"number": number}
        self._on_event(SnapshotWritten(self._job.phase, number, time.monotonic() - begin))

    def _at_boundary(self) -> bool:
        ray.get(self._coordinator.pause.remote(True))
        end = time.monotonic() + self._job.downpour.deadline
        while time.monotonic() < end and self._workers:
            if ray.get(self._coordinator.status.remote())["at_boundary"]:
                return True
            time.sleep(0.005)
        if not self._workers:
            return True
        ray.get(self._coordinator.pause.remote(False))
        return False

    def _peak(self, role: str, value: float) -> None:
        self._meter.peak_bytes[role] = max(self._meter.peak_bytes.get(role, 0.0), value)


def _cause(error: RayError) -> Exception:
    """What was raised inside the actor, where it is one of ours; else Ray's own error."""
    cause = getattr(error, "cause", None)
    while cause is not None and not isinstance(cause, PsdeviseError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause if isinstance(cause, PsdeviseError) else error
