"""One phase on Ray: from its last snapshot to its parameters, through deaths and Ctrl-C.

snapshot ─► coordinator, shards, workers ─► `Supervisor.watch` (progress, snapshots, restarts) ─► parameters

What is to be done when something dies is decided in `psdevise.server.supervisor`; here are its hands on Ray.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError

from psdevise.errors import DeadlineExceeded, ResourceError, WorkerLost
from psdevise.events import Listener, Notice
from psdevise.monitor.logs import logger
from psdevise.runtime.actors import ShardActor, WorkerActor
from psdevise.runtime.cluster import check_resources, connect
from psdevise.runtime.coordinator_actor import CoordinatorActor
from psdevise.runtime.failures import brief, cause, from_coordinator
from psdevise.runtime.job import Interrupt, Job, Trained
from psdevise.runtime.placement import Placement, beside_the_driver, gpus_of, hosts, shard_bytes
from psdevise.runtime.progress import Meter
from psdevise.server import snapshot
from psdevise.server.hands import Ended, Lost, Terms
from psdevise.server.incarnations import Incarnations
from psdevise.server.layout import Layout
from psdevise.server.start import begin_phase
from psdevise.server.supervisor import Supervisor
from psdevise.worker.downpour import make_device
from psdevise.worker.effects import Replaced

RETRY_SECONDS = 0.2
SLOWEST_DISK = 10e6  # bytes/s: a shard that writes its snapshot slower than that counts as one that does not answer


class OnRay:
    """Trains jobs on the Ray cluster that this process has joined or started."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained:
        connect(job.cluster, namespace="psdevise")
        check_resources(job.cluster)
        task = job.build()
        layout = replace(task.layout, shards=job.cluster.num_shards)
        start = begin_phase(job.snapshots, layout, task.initial)
        meter = Meter(job, on_event, task.epochs)
        hands = _Hands(job, layout, start.folder, meter, on_event)
        terms = Terms(
            job.phase,
            job.cluster.num_workers,
            job.downpour.bound,
            job.cluster.snapshot_seconds,
            job.cluster.snapshot_share,
            job.cluster.max_restarts,
            job.cluster.max_bad_gradients,
            job.cluster.start_timeout,
        )
        supervisor = Supervisor(hands, terms, layout, Incarnations(job.incarnations), start, on_event, hands.show)
        try:
            hands.start_coordinator(list(task.slices), task.epochs, start.coordinator)
            supervisor.start()
            status = supervisor.watch(interrupt.is_set)
            # From the last snapshot, which nobody's death can take away any more.
            found = snapshot.load_all(start.folder, supervisor.manifest)
            return Trained(snapshot.gather(layout, found), status["audit"], meter.bill())
        finally:
            hands.end()


@dataclass
class _Life:
    """A worker: `place` is what will tell where it is, once it is there, and `result` how it ended, once it runs."""

    rank: int
    incarnation: int
    handle: Any
    place: Any
    host: str = ""
    result: Any = None


class _Hands:
    """The supervisor's hands: the actors of one phase."""

    def __init__(self, job: Job, layout: Layout, folder: str, meter: Meter, on_event: Listener) -> None:
        self._job, self._layout, self._folder, self._meter, self._on_event = job, layout, folder, meter, on_event
        # Its own, so that runs of the same name on one cluster do not meet.
        self._namespace = f"psdevise-{job.run}-{secrets.token_hex(4)}"
        self._placement: Placement | None = None
        self._hosts: dict[int, str] = {}  # of the shards
        self._coordinator: Any = None
        self._shards: dict[int, Any] = {}
        self._given_up: dict[int, Lost] = {}  # shards that did not answer in time: whatever they do, they are lost
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
        if self._placement is not None:
            self._placement.remove()

    # ------------------------------------------------------------------ coordinator

    def start_coordinator(self, slices: list[tuple[int, int]], epochs: int, state: dict[str, Any] | None) -> None:
        job, cluster = self._job, self._job.cluster
        self._placement = Placement(f"{job.run}/{job.phase}", cluster, shard_bytes(self._layout))
        name = self._name("coordinator")
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(num_cpus=0, name=name, namespace=self._namespace, scheduling_strategy=beside_the_driver())
            .remote(
                slices,
                epochs,
                job.seed,
                cluster.lease_seconds,
                job.downpour.bound,
                job.downpour.warm_start,
                cluster.first_workers,
                cluster.start_timeout,
                state,
                self._log(name),
            )
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        return self._from_coordinator(self._coordinator.ask.remote(method, *arguments))

    # ------------------------------------------------------------------ shards

    def call_shards(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        patience = self._job.downpour.deadline
        if method == "save":
            patience += shard_bytes(self._layout) / SLOWEST_DISK
        end = time.monotonic() + patience
        refs = {i: self._ask_shard(i, method, a) for i, a in arguments.items() if i not in self._given_up}
        found: dict[int, Any] = {i: lost for i, lost in self._given_up.items() if i in arguments}
        for index, ref in refs.items():
            while index not in found:
                try:
                    found[index] = ray.get(ref, timeout=max(0.0, end - time.monotonic()))
                except ActorUnavailableError:  # its host does not answer just now; all methods may be called again
                    time.sleep(RETRY_SECONDS)
                    ref = self._ask_shard(index, method, arguments[index])
                except GetTimeoutError:
                    waited = f"{patience:.4g} s (downpour.deadline)"
                    found[index] = self._given_up[index] = self._lost(index, f"no answer to {method} within {waited}")
                except RayTaskError as e:
                    raise cause(e) from e
                except RayError as e:
                    found[index] = self._lost(index, brief(e))
        return found

    def _ask_shard(self, index: int, method: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self._shards[index], method).remote(*arguments)

    def _lost(self, index: int, reason: str) -> Lost:
        return Lost(f"{reason.rstrip('.')}, on {self._hosts.get(index, 'a node that is gone')}")

    def start_shards(self, incarnations: Mapping[int, int], manifest: Mapping[str, Any]) -> None:
        for index, incarnation in incarnations.items():
            if index in self._shards:  # one that only could not be reached must not go on beside the new one
                ray.kill(self._shards[index])
            name = self._name(f"shard-{index}-{incarnation}")
            self._shards[index] = self._make_shard(index, incarnation, name, dict(manifest))
            self._names[index] = name
            self._given_up.pop(index, None)
        self._hosts |= self._placed({i: self._shards[i].where.remote() for i in incarnations}, "shards")

    def announce(self) -> None:
        names = [self._names[i] for i in range(self._layout.shards)]
        hosts = [self._hosts.get(i, "a node that is gone") for i in range(self._layout.shards)]
        self._from_coordinator(self._coordinator.announce.remote(names, hosts))

    def _make_shard(self, index: int, incarnation: int, name: str, manifest: dict[str, Any]) -> Any:
        job = self._job
        return (
            ray.remote(ShardActor)
            .options(**self._options("shards", index), name=name, namespace=self._namespace, max_task_retries=0)
            .remote(self._layout, index, job.optimizer, job.lag, incarnation, self._folder, manifest, self._log(name))
        )

    # ------------------------------------------------------------------ workers

    def start_workers(self, incarnations: Mapping[int, int]) -> None:
        for rank, incarnation in incarnations.items():
            handle = self._make_worker(rank, incarnation)
            self._workers[rank] = _Life(rank, incarnation, handle, handle.where.remote())

    def await_workers(self) -> None:
        first = range(self._job.cluster.first_workers)
        found = self._placed({rank: life.place for rank, life in self._workers.items() if rank in first}, "workers")
        if len({*found.values(), *self._hosts.values()}) > 1:  # on one machine everybody knows where everything is
            self._on_event(Notice(self._job.phase, hosts("shards", [self._hosts[i] for i in sorted(self._hosts)])))
            self._on_event(Notice(self._job.phase, hosts("workers", [found[i] for i in sorted(found)])))

    def up(self) -> list[int]:
        waiting = {life.place: life for life in self._workers.values() if life.result is None}
        there = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0] if waiting else []
        for ref in there:
            with suppress(RayError):  # one that has died is run all the same, and then has ended
                waiting[ref].host = ray.get(ref)
        return [waiting[ref].rank for ref in there]

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
            make_device(0) if gpus_of(job.cluster, rank) <= 0 else "cuda",
        )

    def host(self, rank: int) -> str:
        return self._workers[rank].host

    def end_worker(self, rank: int) -> None:
        life = self._workers.pop(rank, None)
        if life is not None:
            ray.kill(life.handle)

    def ended(self, seconds: float) -> list[Ended]:
        if not self._workers:
            return []
        running = {life.result: life for life in self._workers.values() if life.result is not None}
        # Places only where nothing runs: one that is there and is not let in any more would be found for ever.
        refs, _ = ray.wait(list(running) or [life.place for life in self._workers.values()], timeout=seconds)
        return [self._end_of(running[ref]) for ref in refs if ref in running]

    def _end_of(self, life: _Life) -> Ended:
        reason = ""
        try:
            self._peak("worker", ray.get(life.result)["peak_bytes"])
        except RayTaskError as e:
            raised = cause(e)
            if isinstance(raised, WorkerLost):  # has it gone, the next question to it says so
                reason = f"it did not reach the coordinator: {raised.what}"
            elif isinstance(raised, DeadlineExceeded):  # another one may have a better way, or find a new shard
                reason = f"{raised.where}: {raised.what}" if raised.where else raised.what
            elif isinstance(raised, Replaced):
                reason = "its lease ran out"
            else:
                raise raised from e
        except RayError as e:
            reason = brief(e).rstrip(".")
        return Ended(life.rank, life.incarnation, f"{reason}, on {life.host}" if reason and life.host else reason)

    def _make_worker(self, rank: int, incarnation: int) -> Any:
        cluster, name = self._job.cluster, self._name(f"worker-{rank}-{incarnation}")
        return (
            ray.remote(WorkerActor)
            .options(
                **self._options("workers", rank, gpus_of(cluster, rank)),
                name=name,
                namespace=self._namespace,
            )
            .remote(rank, incarnation, int(cluster.cpus_per_worker), self._log(name))
        )

    def _log(self, name: str) -> tuple[str, str]:
        """Folder and name of an actor's log."""
        return self._job.logs, "-".join(name.split("/")[1:])

    # ------------------------------------------------------------------ places

    def _options(self, role: str, index: int, gpus: float = 0.0) -> dict[str, Any]:
        assert self._placement is not None
        return self._placement.of(role, index, gpus)

    # ------------------------------------------------------------------ waiting

    def _from_coordinator(self, ref: Any) -> Any:
        return from_coordinator(ref, self._job.downpour.deadline, self._name("coordinator"))

    def _placed(self, refs: dict[int, Any], role: str) -> dict[int, str]:
        """Where actors are that have just been made, but for those that have died since."""
        assert self._placement is not None
        timeout = self._job.cluster.start_timeout
        _, late = ray.wait(list(refs.values()), num_returns=len(refs), timeout=timeout)
        if late:
            one, missing = role.removesuffix("s"), self._placement.missing(role)
            lives = self._hosts if role == "shards" else {}
            who = [
                f"{one}-{i}" + (f" (before on {lives[i]})" if i in lives else "") for i, r in refs.items() if r in late
            ]
            raise ResourceError(
                f"{', '.join(who)} did not start within {timeout:g} s: {missing}",
                where=self._name(role),
                mend="add nodes, or raise cluster.start_timeout if they are slow to install what the job brings along",
            )
        found: dict[int, str] = {}
        for index, ref in refs.items():
            try:
                found[index] = ray.get(ref)
            except RayTaskError as e:
                raise cause(e) from e
            except RayError as e:
                logger.warning("%s %d died while it started: %s", role, index, brief(e))
        return found

    def _name(self, role: str) -> str:
        return f"{self._job.run}/{self._job.phase}/{role}"

    def _peak(self, role: str, value: float) -> None:
        self._meter.peak_bytes[role] = max(self._meter.peak_bytes.get(role, 0.0), value)
