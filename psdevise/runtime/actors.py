"""Shard and worker as Ray actors: thin wrappers that add transport, time and threads.

Shards and the coordinator (`coordinator_actor`, which needs no torch) are synchronous actors: one call at a
time, in order, and a shard's lock keeps Ray's calls and those of its own machine's workers (`local`) apart. What a
shard raises on purpose is returned as a value, because Ray's own exceptions mean that a process is gone.
`max_task_retries` stays 0: Ray may report a failure after success, and the client's own retries carry an identity.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
import torch

from psdevise import errors
from psdevise.monitor import logs
from psdevise.monitor.logs import logger
from psdevise.runtime.failures import from_coordinator
from psdevise.runtime.local import LocalServer
from psdevise.runtime.memory import keep_freed, peak_bytes, touched
from psdevise.runtime.reader import ReadAhead
from psdevise.runtime.remote import Address, RemoteServer
from psdevise.runtime.segment import Gradients, SharedMemory, available
from psdevise.runtime.wire import Wire
from psdevise.server import snapshot
from psdevise.server.layout import Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.shard import LagOptions, Shard
from psdevise.worker.client import Client
from psdevise.worker.downpour import Downpour, DownpourOptions
from psdevise.worker.effects import Ask, NextBatch, Open, Pause, Poll, Receive, Report, Send
from psdevise.worker.replica import Replica, plain_memory
from psdevise.worker.task import Task

REPORT_SECONDS = 1.0  # a Ray call out of caches that hold a model takes a worker 3 ms
NORM_SECONDS = 10.0  # between two passes over a shard's accumulators


class ShardActor:
    """One shard; restores itself from the snapshot it is given. `where` raises what went wrong with that: of an actor
    whose __init__ raised Ray tells only that it is dead."""

    def __init__(
        self,
        layout: Layout,
        index: int,
        optimizer: OptimizerOptions,
        lag: LagOptions,
        incarnation: int,
        folder: str,
        manifest: dict[str, Any],
        log: tuple[str, str] = ("", ""),
    ) -> None:
        logs.begin(*log)
        torch.set_num_threads(1)
        self._refusal: errors.PsdeviseError | None = None
        start, stop = layout.range(index)
        try:
            memory = SharedMemory(stop - start) if available else None
            state = snapshot.load_for(folder, manifest, layout, index)
        except errors.PsdeviseError as e:
            self._refusal = e
            return
        self._shard = Shard(layout, index, optimizer, incarnation, state, lag, memory)
        self._lock = threading.Lock()
        self._update_seconds = 0.0
        self._held_up_seconds = 0.0
        self._norm, self._normed = 0.0, -NORM_SECONDS
        self._local = None if memory is None else LocalServer(self._shard, memory, self._lock, self._pushed)
        self._remote: RemoteServer | None = None
        logger.info("shard %d stands at version %s", index, tuple(self._shard.version))

    def where(self) -> str:
        """The node this shard was placed on.

        Raises:
            SnapshotError: it could not be restored.
            ResourceError: the machine has not as much memory.
        """
        if self._refusal is not None:
            raise self._refusal
        return str(ray.util.get_node_ip_address())

    def address(self) -> str | None:
        """Where workers of this machine reach the shard without Ray."""
        return None if self._local is None else self._local.address

    def listen(self) -> Address | None:
        """Where workers of other machines reach the shard without Ray; nothing listens before one has asked. None where
        there are no other machines, where the node's address is not this machine's own (behind a NAT), and where Ray
        encrypts its calls: what goes without it would go in the clear."""
        host = str(ray.util.get_node_ip_address())
        if host.startswith("127.") or host in ("::1", "localhost") or os.environ.get("RAY_USE_TLS") == "1":
            return None
        if self._remote is None:
            try:
                self._remote = RemoteServer(self._shard, host, self._lock, self._pushed)
            except OSError as e:
                logger.warning("shard %d cannot listen on %s, so all goes through Ray: %s", self._shard.index, host, e)
                return None
        return self._remote.address

    def call(self, method: str, *arguments: Any) -> Any:
        """pull, push, answer or average; a PsdeviseError is returned, not raised."""
        begin = time.perf_counter()
        with self._lock:
            try:
                found = getattr(self._shard, method)(*arguments)
            except errors.PsdeviseError as e:
                return e
            if method == "pull":  # Ray serialises it later, without the lock
                views = {"dense": found.dense, "accumulators": found.accumulators, "buffers": found.buffers}
                found = replace(found, **{k: None if v is None else v.copy() for k, v in views.items()})
        if method == "push":
            self._pushed(time.perf_counter() - begin)
        return found

    def save(self, path: str) -> str:
        with self._lock:
            shapes = self._shard.shapes()
        room = {name: touched(shape) for name, shape in shapes.items()}  # while the shard goes on
        with self._lock:
            begin = time.perf_counter()
            state = self._shard.snapshot(room)
            self._held_up_seconds = time.perf_counter() - begin
        return snapshot.write_shard(path, state)

    def admit(self, worker: int, incarnation: int) -> None:
        with self._lock:
            self._shard.admit(worker, incarnation)

    def amend(self, turn: Any) -> None:
        with self._lock:
            self._shard.amend(turn)

    def stats(self) -> dict[str, Any]:
        with self._lock:
            stats = self._shard.stats()
        if time.monotonic() - self._normed > NORM_SECONDS:
            self._norm, self._normed = self._shard.accumulator_norm(), time.monotonic()
        return stats | {
            "update_seconds": self._update_seconds,
            "held_up_seconds": self._held_up_seconds,  # updates, by the last snapshot
            "accumulator_norm": self._norm,
            "peak_bytes": peak_bytes(),
            "pid": os.getpid(),
        }

    def _pushed(self, seconds: float) -> None:
        self._update_seconds += seconds


class WorkerActor:
    """One Downpour worker: drives the loop and serves its effects."""

    def __init__(self, rank: int, incarnation: int, threads: int, log: tuple[str, str] = ("", "")) -> None:
        logs.begin(*log)
        keep_freed()
        torch.set_num_threads(max(1, threads))
        self._rank, self._incarnation = rank, incarnation

    def where(self) -> str:
        """The node this worker was placed on."""
        return str(ray.util.get_node_ip_address())

    @logs.telling_errors()
    def run(
        self,
        build: Callable[[], Task],
        layout: Layout,
        options: DownpourOptions,
        optimizer: OptimizerOptions,
        key: tuple[int, int],
        namespace: str,
        coordinator: Any,
        read_ahead: int,
        device: str,
    ) -> dict[str, float]:
        """Runs to the end of the phase; returns this process's peak memory."""
        task = build()
        task.layout = layout
        gradients = Gradients() if available else None
        allocate = plain_memory if gradients is None else gradients.allocate
        replica = Replica(layout, device, options.local_step, allocate)
        in_flight = int(options.max_in_flight_mb * 1e6)
        client = Client(layout, replica, self._rank, self._incarnation, options.deadline, in_flight)
        loop = Downpour(task, replica, client, options, key, optimizer.rate, optimizer.eps).run()
        hands = _Hands(
            Wire(coordinator, namespace, gradients, options.deadline, f"worker {self._rank} on {self.where()}"),
            coordinator,
            (self._rank, self._incarnation),
            ReadAhead(task, key, read_ahead),
            options.deadline,
        )
        logger.info("worker %d begins on %s", self._rank, device)
        value: Any = None
        while True:
            try:
                effect = loop.send(value)
            except StopIteration:
                break
            value = hands.serve(effect)
        hands.report()
        from_coordinator(coordinator.ask.remote("leave", self._rank, self._incarnation), options.deadline)
        logger.info("worker %d has ended", self._rank)
        return {"peak_bytes": peak_bytes()}


class _Hands:
    """Serves a worker's effects on Ray, and measures where its time goes."""

    def __init__(self, wire: Wire, coordinator: Any, who: tuple[int, int], reader: ReadAhead, deadline: float) -> None:
        self._wire, self._coordinator, self._who, self._reader = wire, coordinator, who, reader
        self._deadline = deadline
        self._counters: dict[str, float] = {}
        self._gauges: dict[str, float] = {}
        self._reported = self._left = time.perf_counter()
        self._report: Any = None
        self._alive = True

    def serve(self, effect: Any) -> Any:
        begin = time.perf_counter()
        self._add("compute_seconds", begin - self._left)
        kind, value = self._serve(effect)
        self._left = time.perf_counter()
        self._add(kind, self._left - begin)
        if kind in ("fetch_seconds", "push_seconds"):
            self._add("wire_seconds", self._left - begin)
        return value

    def report(self) -> None:
        """Sends what was counted since the last report; the answer to the last one tells whether this
        worker has been replaced."""
        if self._report is not None:
            self._alive &= bool(self._ask_result(self._report))
        self._report = self._coordinator.ask.remote("report", *self._who, self._counters, self._gauges)
        self._counters, self._reported = {}, time.perf_counter()

    def _serve(self, effect: Any) -> tuple[str, Any]:
        match effect:
            case Send(calls):
                pulls = all(c.method == "pull" for c in calls)
                return "fetch_seconds" if pulls else "push_seconds", self._wire.send(calls)
            case Receive(ticket, of):
                return "push_seconds" if of == "push" else "fetch_seconds", self._wire.receive(ticket)
            case Poll(ticket):
                return "push_seconds", self._wire.ready(ticket)
            case Open(taken):
                self._reader.open(taken)
                return "read_seconds", None
            case NextBatch():
                return "read_seconds", self._reader.next()
            case Report(figures, gauges):
                for name, value in figures.items():
                    self._add(name, value)
                self._gauges = gauges | {"pid": float(os.getpid()), "queue": float(self._reader.waiting)}
                if time.perf_counter() - self._reported > REPORT_SECONDS:
                    self.report()
                return "wire_seconds", self._alive
            case Ask(question, arguments):
                ref = self._coordinator.ask.remote(question, *self._who, *arguments)
                if question == "pushed":
                    return "wire_seconds", None
                return "wire_seconds", self._ask_result(ref)
            case Pause(seconds):
                if time.perf_counter() - self._reported > REPORT_SECONDS:
                    self.report()
                time.sleep(seconds)
                return "idle_seconds", None
        raise TypeError(f"no such effect: {effect!r}")

    def _ask_result(self, ref: Any) -> Any:
        return from_coordinator(ref, self._deadline)

    def _add(self, name: str, value: float) -> None:
        self._counters[name] = self._counters.get(name, 0.0) + value
