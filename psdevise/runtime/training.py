"""One phase on Ray: from its last snapshot to its parameters, through deaths and Ctrl-C.

snapshot ─► coordinator, shards, workers ─► `Supervisor.watch` (progress, snapshots, restarts) ─► parameters

What is to be done when something dies is decided in `psdevise.server.supervisor`; here are its hands on Ray.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from psdevise.errors import DeadlineExceeded, PsdeviseError, ResourceError
from psdevise.events import Listener
from psdevise.runtime.actors import ShardActor, WorkerActor
from psdevise.runtime.cluster import check_resources, connect
from psdevise.runtime.coordinator_actor import CoordinatorActor
from psdevise.runtime.job import Interrupt, Job, Trained
from psdevise.runtime.progress import Meter
from psdevise.server import snapshot
from psdevise.server.incarnations import Incarnations
from psdevise.server.layout import Layout
from psdevise.server.start import begin_phase
from psdevise.server.supervisor import Ended, Lost, Supervisor, Terms
from psdevise.worker.downpour import make_device
from psdevise.worker.effects import Replaced


class OnRay:
    """Trains jobs on the Ray cluster that this process has joined or started."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained:
        connect(job.cluster, namespace="psdevise")
        check_resources(job.cluster)
        task = job.build()
        layout = replace(task.layout, shards=job.cluster.num_shards)
        start = begin_phase(job.snapshots, layout, task.initial)
        meter = Meter(job, on_event, task.epochs)
        hands = _Hands(job, layout, start.folder, meter)
        terms = Terms(
            job.phase,
            job.cluster.num_workers,
            job.downpour.bound,
            job.cluster.snapshot_seconds,
            job.cluster.max_restarts,
        )
        supervisor = Supervisor(hands, terms, layout, Incarnations(job.incarnations), start, on_event, hands.show)
        try:
            hands.start_coordinator(list(task.slices), task.epochs, start.coordinator)
            supervisor.start()
            status = supervisor.watch(interrupt.is_set)
            return Trained(snapshot.gather(layout, hands.states()), status["audit"], meter.bill())
        finally:
            hands.end()


@dataclass
class _Life:
    rank: int
    incarnation: int
    handle: Any
    result: Any


class _Hands:
    """The supervisor's hands: the actors of one phase."""

    def __init__(self, job: Job, layout: Layout, folder: str, meter: Meter) -> None:
        self._job, self._layout, self._folder, self._meter = job, layout, folder, meter
        self._namespace = "psdevise"
        self._coordinator: Any = None
        self._shards: dict[int, Any] = {}
        self._names: dict[int, str] = {}
        self._workers: dict[int, _Life] = {}

    def now(self) -> float:
        return time.monotonic()

    def show(self, status: dict[str, Any], stats: list[dict[str, Any]], last: bool) -> None:
        for found in stats:
            self._peak("shard", found["peak_bytes"])
        self._meter.show(status, stats, last)

    def end(self) -> None:
        for handle in [*(w.handle for w in self._workers.values()), *self._shards.values(), self._coordinator]:
            if handle is not None:
                ray.kill(handle)

    # ------------------------------------------------------------------ coordinator

    def start_coordinator(self, slices: list[tuple[int, int]], epochs: int, state: dict[str, Any] | None) -> None:
        job, cluster = self._job, self._job.cluster
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(num_cpus=0, name=self._name("coordinator"), namespace=self._namespace)
            .remote(
                slices,
                epochs,
                job.seed,
                cluster.lease_seconds,
                job.downpour.bound,
                job.downpour.warm_start,
                cluster.num_workers,
                cluster.start_timeout,
                state,
            )
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        return self._got(self._coordinator.ask.remote(method, *arguments), "coordinator")

    # ------------------------------------------------------------------ shards

    def call_shards(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        refs = {i: getattr(self._shards[i], method).remote(*a) for i, a in arguments.items()}
        found: dict[int, Any] = {}
        for index, ref in refs.items():
            try:
                found[index] = self._got(ref, f"shard-{index}")
            except RayError as e:
                found[index] = Lost(str(e).splitlines()[0])
        return found

    def start_shards(self, incarnations: Mapping[int, int], manifest: Mapping[str, Any]) -> None:
        for index, incarnation in incarnations.items():
            name = self._name(f"shard-{index}-{incarnation}")
            self._shards[index] = self._make_shard(index, incarnation, name, dict(manifest))
            self._names[index] = name
        self._placed([self._shards[i].stats.remote() for i in incarnations], "shards")

    def announce(self) -> None:
        names = [self._names[i] for i in range(self._layout.shards)]
        self._got(self._coordinator.announce.remote(names), "coordinator")

    def states(self) -> list[Any]:
        """The shards' whole states, at the end of the phase."""
        refs = [self._shards[i].dense.remote() for i in range(self._layout.shards)]
        return [self._got(ref, f"shard-{i}") for i, ref in enumerate(refs)]

    def _make_shard(self, index: int, incarnation: int, name: str, manifest: dict[str, Any]) -> Any:
        job = self._job
        return (
            ray.remote(ShardActor)
            .options(num_cpus=job.cluster.cpus_per_shard, name=name, namespace=self._namespace, max_task_retries=0)
            .remote(self._layout, index, job.optimizer, job.lag, incarnation, self._folder, manifest)
        )

    # ------------------------------------------------------------------ workers

    def start_workers(self, incarnations: Mapping[int, int]) -> None:
        for rank, incarnation in incarnations.items():
            self._workers[rank] = _Life(rank, incarnation, self._make_worker(rank, incarnation), None)

    def await_workers(self) -> None:
        self._placed([life.handle.where.remote() for life in self._workers.values()], "workers")

    def run_worker(self, rank: int) -> None:
        job, life = self._job, self._workers[rank]
        life.result = life.handle.run.remote(
            job.build,
            self._layout,
            job.downpour,
            job.optimizer,
            (job.seed, job.phase_number),
            self._namespace,
            self._coordinator,
            job.cluster.read_ahead,
            make_device(0) if self._gpus(rank) <= 0 else "cuda",
        )

    def end_worker(self, rank: int) -> None:
        life = self._workers.pop(rank, None)
        if life is not None:
            ray.kill(life.handle)

    def ended(self, seconds: float) -> list[Ended]:
        results = {life.result: life for life in self._workers.values() if life.result is not None}
        if not results:
            return []
        refs, _ = ray.wait(list(results), num_returns=len(results), timeout=seconds)
        return [self._end_of(results[ref]) for ref in refs]

    def _end_of(self, life: _Life) -> Ended:
        reason = ""
        try:
            self._peak("worker", ray.get(life.result)["peak_bytes"])
        except RayTaskError as e:
            cause = _cause(e)
            if not isinstance(cause, Replaced):
                raise cause from e
            reason = "its lease ran out"
        except RayError as e:
            reason = str(e).splitlines()[0]
        return Ended(life.rank, life.incarnation, reason)

    def _make_worker(self, rank: int, incarnation: int) -> Any:
        cluster = self._job.cluster
        return (
            ray.remote(WorkerActor)
            .options(
                num_cpus=cluster.cpus_per_worker,
                num_gpus=self._gpus(rank),
                name=self._name(f"worker-{rank}-{incarnation}"),
                namespace=self._namespace,
            )
            .remote(rank, incarnation, int(cluster.cpus_per_worker))
        )

    def _gpus(self, rank: int) -> float:
        cluster = self._job.cluster
        gpu_workers = cluster.num_workers if cluster.gpu_workers is None else cluster.gpu_workers
        return cluster.gpus_per_worker if rank < gpu_workers else 0.0

    # ------------------------------------------------------------------ waiting

    def _got(self, ref: Any, who: str) -> Any:
        deadline = self._job.downpour.deadline
        try:
            return ray.get(ref, timeout=deadline)
        except GetTimeoutError as e:
            raise DeadlineExceeded(f"no answer within {deadline:g} s", where=self._name(who)) from e
        except RayTaskError as e:
            raise _cause(e) from e

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
        except RayError as e:
            raise _cause(e) from e

    def _name(self, role: str) -> str:
        return f"{self._job.run}/{self._job.phase}/{role}"

    def _peak(self, role: str, value: float) -> None:
        self._meter.peak_bytes[role] = max(self._meter.peak_bytes.get(role, 0.0), value)


def _cause(error: RayError) -> Exception:
    """What was raised inside the actor, where it is one of ours; else Ray's own error."""
    cause = getattr(error, "cause", None)
    while cause is not None and not isinstance(cause, PsdeviseError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause if isinstance(cause, PsdeviseError) else error
