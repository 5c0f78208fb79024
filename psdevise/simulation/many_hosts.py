"""Calls between hosts, with what they cost: as Ray carries them.

A worker's gradient is copied into the object store, crosses two network cards, and is checked and applied by the
shard's actor, which serves one call after the other. Parameters are copied by the actor, copied again into the object
store, cross two cards, and are copied into the replica by the worker when it takes them. Every host has its own cores
and one network card; workers and shards are on different hosts, the coordinator on one of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from psdevise.simulation.clock import Clock
from psdevise.simulation.hardware import Desk, Lane, Processor, Then, transfer
from psdevise.simulation.network import Exchange, ShardLife, Ticket, answer_of, exchanges
from psdevise.simulation.options import SimulateOptions
from psdevise.simulation.sizes import Sizes, Stepping
from psdevise.simulation.witness import Witness
from psdevise.worker.effects import Call


class _Host:
    def __init__(self, options: SimulateOptions, clock: Clock) -> None:
        self.cores = Processor(clock, options.hosts.cores, options.hosts.streams)
        self.in_, self.out = (Lane(options.hosts.gbit * 1e9 / 8) for _ in range(2))


class ManyHosts:
    """A Transport (`psdevise.simulation.network`)."""

    def __init__(self, options: SimulateOptions, clock: Clock, random: Random, witness: Witness) -> None:
        self._options, self._costs, self._sizes = options, options.costs, Sizes(options)
        self._clock, self._witness = clock, witness
        self._step = Stepping(options, clock, random)
        self._workers: dict[int, _Host] = defaultdict(lambda: _Host(options, clock))
        self._shards: dict[int, _Host] = defaultdict(lambda: _Host(options, clock))
        self._head, self._coordinator = _Host(options, clock), Desk(clock)
        self._actors: dict[int, Desk] = defaultdict(lambda: Desk(clock))  # by the shard's incarnation
        self._ways: dict[tuple[int, int], _Way] = defaultdict(_Way)
        self._codec = options.costs.codec_gb if options.model.bytes_per_value < 4 else 0.0

    def busy(self) -> dict[str, list[float]]:
        """Seconds of use so far, of each of what may be the bottleneck."""
        workers, shards = self._workers.values(), self._shards.values()
        return {
            "worker cores": [h.cores.busy for h in workers],
            "worker network": [lane.busy for h in workers for lane in (h.in_, h.out)],
            "shard network": [lane.busy for h in shards for lane in (h.in_, h.out)],
            "shard": [actor.busy for actor in self._actors.values()],
            "coordinator": [self._coordinator.busy],
        }

    # ------------------------------------------------------------------ time

    def delay(self) -> float:
        return self._options.hosts.latency

    def start_seconds(self, role: Literal["worker", "shard"]) -> float:
        return self._sizes.start_seconds(role)

    def compute(self, rank: int, then: Then) -> None:
        self._step(self._worker(rank).cores, then)

    def work(self, rank: int, seconds: float, then: Then) -> None:
        self._worker(rank).cores.run(seconds, then, memory=True)

    def sending(self, calls: tuple[Call, ...]) -> float:
        pushes = sum(c.method == "push" for c in calls)
        return len(calls) * self._costs.call + pushes * (self._costs.copy_gb + self._codec) * self._sizes.push

    def receiving(self, replies: list[Any]) -> float:
        return sum(self._sizes.reply(r) for r in replies) * (self._costs.copy_gb + self._codec)

    def coordinate(self, begin: Then) -> None:
        def serve(leave: Then) -> None:
            def answer() -> None:
                begin()
                leave()

            self._head.cores.run(self._costs.call, answer)

        self._coordinator.enter(serve)

    def save(self, life: ShardLife, copy: Then, write: Then) -> None:
        """The actor serves nobody else until its file is written."""

        def serve(leave: Then) -> None:
            def copied() -> None:
                copy()
                self._clock.after(self._costs.disk_gb * self._sizes.state, written)

            def written() -> None:
                leave()
                write()

            self._shard(life).cores.run(self._costs.copy_gb * self._sizes.state, copied, memory=True)

        self._actors[life.incarnation].enter(serve)

    # ------------------------------------------------------------------ calls

    def send(
        self, rank: int, calls: tuple[Call, ...], lives: list[ShardLife], on_lost: Callable[[int], object]
    ) -> Ticket:
        ticket, sent = exchanges(rank, calls, lives, on_lost)
        for exchange in sent:
            if exchange.call.method == "push":
                self._push(exchange, self._worker(rank))
            else:
                self._ask(exchange, self._worker(rank))
        return ticket

    def _ask(self, exchange: Exchange, worker: _Host) -> None:
        """A pull, or another call whose arguments are small."""
        life, costs = exchange.life, self._costs

        def serve(leave: Then) -> None:
            moved = exchange.call.method == "pull" and exchange.call.arguments[1] != life.shard.version
            size = self._sizes.pull(moved) if exchange.call.method == "pull" else 0.0

            def answer() -> None:
                reply = answer_of(life, exchange.call, self._witness) if life.alive else None
                leave()
                if reply is None:
                    exchange.lose()
                    return
                back = self._sizes.packed * size * 1e9
                transfer(self._clock, shard.out, worker.in_, back, self.delay(), lambda: exchange.answer(reply))

            self._busy(life, (2 * costs.copy_gb + self._codec) * size, answer)

        shard = self._shard(life)
        enter = lambda: self._actors[life.incarnation].enter(serve)  # noqa: E731
        self._clock.after(self.delay(), lambda: self._way(exchange).after_pushes(enter))

    def _push(self, exchange: Exchange, worker: _Host) -> None:
        life, costs, size = exchange.life, self._costs, self._sizes.push

        def serve(leave: Then) -> None:
            def answer() -> None:
                reply = answer_of(life, exchange.call, self._witness) if life.alive else None
                leave()
                if reply is None:
                    exchange.lose()
                else:
                    self._clock.after(self.delay(), lambda: exchange.answer(reply))

            self._busy(life, (self._codec + costs.check_gb + costs.update_gb) * size, answer)

        def arrive() -> None:
            self._actors[life.incarnation].enter(serve)
            self._way(exchange).arrived()

        self._way(exchange).pushes += 1
        there = self._sizes.packed * size * 1e9
        transfer(self._clock, worker.out, self._shard(life).in_, there, self.delay(), arrive)

    def _busy(self, life: ShardLife, seconds: float, then: Then) -> None:
        """Serves a call with so many seconds of passes through memory; a process that is dead does nothing."""
        self._shard(life).cores.run(self._costs.call + seconds if life.alive else 0.0, then, memory=True)

    def _way(self, exchange: Exchange) -> _Way:
        return self._ways[exchange.rank, exchange.life.incarnation]

    def _worker(self, rank: int) -> _Host:
        return self._workers[rank // self._options.hosts.workers_per_host]

    def _shard(self, life: ShardLife) -> _Host:
        return self._shards[life.index // self._options.hosts.shards_per_host]


@dataclass
class _Way:
    """From one worker to one life of a shard: Ray serves the calls of one caller in their order, so that what is sent
    behind a push waits until that has come."""

    pushes: int = 0
    waiting: list[Then] = field(default_factory=list)

    def after_pushes(self, then: Then) -> None:
        if self.pushes:
            self.waiting.append(then)
        else:
            then()

    def arrived(self) -> None:
        self.pushes -= 1
        if not self.pushes:
            waiting, self.waiting = self.waiting, []
            for go_on in waiting:
                go_on()
