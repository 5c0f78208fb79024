"""Shard and worker as Ray actors: thin wrappers that add transport, time and threads.

Shards and the coordinator (`coordinator_actor`, which needs no torch) are synchronous actors: one call at a
time, in order, so that a pull is never torn. What a shard raises on purpose is returned as a value, because
Ray's own exceptions mean that a process is gone. `max_task_retries` stays 0: Ray may report a failure after
success, and the client's own retries carry an identity.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from psdevise import errors
from psdevise.runtime.memory import peak_bytes
from psdevise.runtime.reader import ReadAhead
from psdevise.server import snapshot
from psdevise.server.layout import Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.shard import LagOptions, Shard
from psdevise.worker.client import Client
from psdevise.worker.downpour import Downpour, DownpourOptions
from psdevise.worker.effects import Ask, Call, NextBatch, Open, Pause, Poll, Receive, Report, Send, ShardLost
from psdevise.worker.replica import Replica
from psdevise.worker.task import Task

REPORT_SECONDS = 0.5


class ShardActor:
    """One shard; restores itself from the snapshot it is given."""

    def __init__(
        self,
        layout: Layout,
        index: int,
        optimizer: OptimizerOptions,
        lag: LagOptions,
        incarnation: int,
        folder: str,
        manifest: dict[str, Any],
    ) -> None:
        torch.set_num_threads(1)
        self._shard = Shard(
            layout, index, optimizer, incarnation, snapshot.load_for(folder, manifest, layout, index), lag
        )
        self._update_seconds = 0.0

    def call(self, method: str, *arguments: Any) -> Any:
        """pull, push, answer or average; a PsdeviseError is returned, not raised."""
        begin = time.perf_counter()
        try:
            return getattr(self._shard, method)(*arguments)
        except errors.PsdeviseError as e:
            return e
        finally:
            if method == "push":
                self._update_seconds += time.perf_counter() - begin

    def save(self, path: str) -> str:
        return snapshot.write_shard(path, self._shard.snapshot())

    def admit(self, worker: int, incarnation: int) -> None:
        self._shard.admit(worker, incarnation)

    def amend(self, turn: Any) -> None:
        self._shard.amend(turn)

    def stats(self) -> dict[str, Any]:
        return self._shard.stats() | {
            "update_seconds": self._update_seconds,
            "peak_bytes": peak_bytes(),
            "pid": os.getpid(),
        }

    def dense(self) -> Any:
        """The whole state, for the end of a phase."""
        return self._shard.snapshot()


class WorkerActor:
    """One Downpour worker: drives the loop and serves its effects."""

    def __init__(self, rank: int, incarnation: int, threads: int) -> None:
        torch.set_num_threads(max(1, threads))
        self._rank, self._incarnation = rank, incarnation

    def where(self) -> str:
        """The node this worker was placed on."""
        return str(ray.util.get_node_ip_address())

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
        replica = Replica(layout, device, accumulators=options.local_step == "adagrad")
        in_flight = int(options.max_in_flight_mb * 1e6)
        client = Client(layout, replica, self._rank, self._incarnation, options.deadline, in_flight)
        loop = Downpour(task, replica, client, options, key, optimizer.rate, optimizer.eps).run()
        hands = _Hands(
            _Wire(coordinator, namespace, options.deadline),
            coordinator,
            (self._rank, self._incarnation),
            ReadAhead(task, key, read_ahead),
            options.deadline,
        )
        value: Any = None
        while True:
            try:
                effect = loop.send(value)
            except StopIteration:
                break
            value = hands.serve(effect)
        hands.report()
        ray.get(coordinator.ask.remote("leave", self._rank, self._incarnation), timeout=options.deadline)
        return {"peak_bytes": peak_bytes()}


class _Wire:
    """Calls to shards; where a shard was restarted, the coordinator knows its new name."""

    def __init__(self, coordinator: Any, namespace: str, deadline: float) -> None:
        self._coordinator, self._namespace, self._deadline = coordinator, namespace, deadline
        self._names: list[str] = ray.get(coordinator.shards.remote(), timeout=deadline)
        self._handles: dict[int, Any] = {}

    def send(self, calls: tuple[Call, ...]) -> list[Any]:
        return [self._send(c) for c in calls]

    def receive(self, ticket: list[Any], calls: list[int]) -> list[Any]:
        try:
            return list(ray.get(ticket, timeout=self._deadline))
        except (RayError, TypeError, ValueError):
            return [self._one(ref, shard) for ref, shard in zip(ticket, calls, strict=True)]

    def _send(self, call: Call) -> Any:
        try:
            if call.shard not in self._handles:
                self._names = ray.get(self._coordinator.shards.remote(), timeout=self._deadline)
                self._handles[call.shard] = ray.get_actor(self._names[call.shard], self._namespace)
            return self._handles[call.shard].call.remote(call.method, *call.arguments)
        except (ValueError, RayActorError) as e:
            self._handles.pop(call.shard, None)
            return ShardLost(str(e), where=self._names[call.shard])

    def _one(self, ref: Any, shard: int) -> Any:
        if isinstance(ref, ShardLost):
            return ref
        try:
            return ray.get(ref, timeout=self._deadline)
        except GetTimeoutError:
            return errors.DeadlineExceeded(
                f"no answer within {self._deadline:g} s",
                where=self._names[shard],
                mend="raise downpour.deadline",
            )
        except RayTaskError as e:
            raise e.as_instanceof_cause() from e
        except RayError as e:
            self._handles.pop(shard, None)
            return ShardLost(str(e).splitlines()[0], where=self._names[shard])


class _Hands:
    """Serves a worker's effects on Ray, and measures where its time goes."""

    def __init__(self, wire: _Wire, coordinator: Any, who: tuple[int, int], reader: ReadAhead, deadline: float) -> None:
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
                return "wire_seconds", (self._wire.send(calls), [c.shard for c in calls])
            case Receive((ticket, shards)):
                return "wire_seconds", self._wire.receive(ticket, shards)
            case Poll((ticket, _)):
                refs = [r for r in ticket if not isinstance(r, ShardLost)]
                ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
                return "wire_seconds", len(ready) == len(refs)
            case Open(taken):
                self._reader.open(taken)
                return "read_seconds", None
            case NextBatch():
                return "read_seconds", self._reader.next()
            case Report(figures, gauges):
                for name, value in figures.items():
                    self._add(name, value)
                self._gauges = gauges | {"pid": float(os.getpid())}
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
        try:
            return ray.get(ref, timeout=self._deadline)
        except GetTimeoutError as e:
            raise errors.DeadlineExceeded(f"the coordinator did not answer within {self._deadline:g} s") from e

    def _add(self, name: str, value: float) -> None:
        self._counters[name] = self._counters.get(name, 0.0) + value
