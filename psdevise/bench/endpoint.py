"""Shards as a run has them, and one client of theirs whose calls can be timed one by one."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Generator
from typing import Any

import numpy as np

from psdevise import store
from psdevise.runtime.actor import ask_all, spawn
from psdevise.runtime.actors import ShardActor
from psdevise.runtime.coordinator_actor import CoordinatorActor
from psdevise.runtime.segment import Gradients, available
from psdevise.runtime.wire import Wire
from psdevise.server import snapshot
from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Array, Rows
from psdevise.server.shard import LagOptions
from psdevise.worker.client import Client
from psdevise.worker.effects import Call, Pause, Poll, Receive, Send
from psdevise.worker.replica import Replica, plain_memory

NAMESPACE = "psdevise"
DEADLINE = 60.0
_incarnations = itertools.count(1)


class Server:
    """Ray actors: the shards of a layout with one dense parameter and at most one table, and their coordinator.

    Args:
        resources: what Ray is to place the shards by, to have them on another node.
    """

    def __init__(
        self, size: int, shards: int, folder: str, table: tuple[int, int] | None = None, resources: Any = None
    ) -> None:
        tables = () if table is None else (Table("rows", *table),)
        self.layout = Layout(dense=(Dense("dense", (size,)),) if size else (), tables=tables, shards=shards)
        named = {"dense": np.zeros(size, np.float32)} | {t.name: np.zeros((t.rows, t.dim), np.float32) for t in tables}
        states = snapshot.initial(self.layout, named)
        checksums = [snapshot.write_shard(snapshot.shard_path(folder, 0, i), s) for i, s in enumerate(states)]
        manifest = {"number": 0, "layout": self.layout.plain(), "checksums": checksums}
        name = f"bench-{os.getpid()}-{next(_incarnations)}"
        self._names = [f"{name}-{i}" for i in range(shards)]
        self._shards = [
            spawn(
                ShardActor, self.layout, i, OptimizerOptions(), LagOptions(), next(_incarnations), folder, manifest,
                options={"name": n, "namespace": NAMESPACE, "resources": resources},
            )
            for i, n in enumerate(self._names)
        ]  # fmt: skip
        self._coordinator = spawn(
            CoordinatorActor, slices=[], epochs=0, seed=0, lease_seconds=60.0, bound=None, warm_start=0, expected=1,
            start_seconds=60.0, state=None,
        )  # fmt: skip
        ask_all(self._shards, "stats")
        self._coordinator.ask("announce", self._names)
        self.coordinator = self._coordinator.handle
        store.remove(folder)

    def counts(self, what: str) -> int:
        """Sum of a counter over the shards."""
        return sum(s["counts"].get(what, 0) for s in ask_all(self._shards, "stats"))

    @property
    def parts(self) -> int:
        """How many shards have a part of the dense parameters, and so of every push."""
        ranges = [self.layout.range(s) for s in range(self.layout.shards)]
        return sum(stop > start for start, stop in ranges)

    def end(self) -> None:
        for actor in (*self._shards, self._coordinator):
            actor.end()


class Endpoint:
    """What a worker has of a server: replica, client and wire, without the loop. Also an actor of its own, as a
    second worker."""

    def __init__(self, layout: Layout, coordinator: Any, rank: int = 0) -> None:
        gradients = Gradients() if available else None
        self.replica = Replica(layout, allocate=plain_memory if gradients is None else gradients.allocate)
        self.client = Client(layout, self.replica, rank, next(_incarnations), DEADLINE, 2**40)
        self._wire = Wire(coordinator, NAMESPACE, gradients, DEADLINE)
        self._torn = 0
        self.pull()

    def pull(self, rows: dict[str, Rows] | None = None) -> float:
        """Fetches what is newer (and `rows`) into the replica; seconds."""
        begin = time.perf_counter()
        self._drive(self.client.fetch(rows or {}))
        return time.perf_counter() - begin

    def push(self, rows: dict[str, tuple[Rows, Array]] | None = None) -> float:
        """Pushes a gradient of ones (and `rows`) until it is applied; seconds, without making the gradient."""
        dense = None
        if self.replica.layout.size:
            self.replica.open_gradient()
            self.replica.gradient.fill_(1.0)
            self.replica.close_gradient()
            dense = self.replica.take_gradient()
        begin = time.perf_counter()
        self._drive(self.client.push(dense, rows or {}, 1, 1.0))
        self._drive(self.client.settle_all())
        return time.perf_counter() - begin

    def ask(self, call: Call) -> Any:
        """One call and its answer."""
        return self._wire.receive(self._wire.send((call,)))[0]

    def push_for(self, seconds: float) -> int:
        """Pushes at full speed; how many."""
        end, pushes = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.push()
            pushes += 1
        return pushes

    def torn(self) -> bool:
        """Whether a shard's part of the replica is of more than one version: every parameter has the same history,
        and a step more changes it by far more than rounding does."""
        layout, arena = self.replica.layout, self.replica.arena
        parts = [arena[slice(*layout.range(s))] for s in range(layout.shards)]
        return any(bool(p.max() - p.min() > 1e-5 * p.abs().max()) for p in parts if p.numel())

    def _drive(self, effects: Generator[Any, Any, Any]) -> None:
        value: Any = None
        while True:
            try:
                effect = effects.send(value)
            except StopIteration:
                return
            match effect:
                case Send(calls):
                    value = self._wire.send(calls)
                case Receive(ticket):
                    value = self._wire.receive(ticket)
                case Poll(ticket):
                    value = self._wire.ready(ticket)
                case Pause(seconds):
                    value = None
                    time.sleep(seconds)
