"""Calls between hosts, with what they cost: as `psdevise.runtime.remote` carries them, on a stream for each pair.

A worker's gradient crosses two network cards and lands in memory of the shard's, which checks and applies it from
there. Parameters are copied aside by the shard, cross two cards into spare memory of the worker's, and are copied into
the replica when the worker takes them. The kernels copy what is sent and what comes in while it travels, on cores of
either host. A shard does one of its checks, updates and copies after the other. Every host has its own cores and one
network card; workers and shards are on different hosts, the coordinator, which is asked through Ray, on one of its own.
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
        self._locks: dict[int, Desk] = defaultdict(lambda: Desk(clock))  # by the shard's incarnation
        self._ways: dict[tuple[int, int], _Way] = defaultdict(_Way)
        self._codec = options.costs.codec_gb if options.model.bytes_per_value < 4 else 0.0

    def busy(self) -> dict[str, list[float]]:
        """Seconds of use so far, of each of what may be the bottleneck."""
        workers, shards = self._workers.values(), self._shards.values()
        return {
            "worker cores": [h.cores.busy for h in workers],
            "worker network": [lane.busy for h in workers for lane in (h.in_, h.out)],
            "shard network": [lane.busy for h in shards for lane in (h.in_, h.out)],
            "shard": [lock.busy for lock in self._locks.values()],
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
        return len(calls) * self._costs.stream + pushes * self._codec * self._sizes.push

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
        """The shard serves nobody while its state is copied; the copy is written beside."""

        def serve(leave: Then) -> None:
            def copied() -> None:
                copy()
                leave()
                self._clock.after(self._costs.disk_gb * self._sizes.state, write)

            self._shard(life).cores.run(self._costs.copy_gb * self._sizes.state, copied, memory=True)

        self._locks[life.incarnation].enter(serve)

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
        life = exchange.life

        def serve(leave: Then) -> None:
            moved = exchange.call.method == "pull" and exchange.call.arguments[1] != life.shard.version
            size = self._sizes.pull(moved) if exchange.call.method == "pull" else 0.0

            def answer() -> None:
                reply = answer_of(life, exchange.call, self._witness) if life.alive else None
                leave()
                if reply is None:
                    exchange.lose()
                    return
                travel = lambda: self._travel(size, shard, worker, lambda: exchange.answer(reply))  # noqa: E731
                shard.cores.run(self._codec * size, travel)

            self._busy(life, self._costs.copy_gb * size, answer)

        shard = self._shard(life)
        enter = lambda: self._locks[life.incarnation].enter(serve)  # noqa: E731
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
            self._locks[life.incarnation].enter(serve)
            self._way(exchange).arrived()

        self._way(exchange).pushes += 1
        self._travel(size, worker, self._shard(life), arrive)

    def _travel(self, size: float, source: _Host, target: _Host, then: Then) -> None:
        """So many GB of float32 from host to host, and the copies of both kernels beside them."""
        nbytes = self._sizes.packed * size * 1e9
        left = 3

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        for host in (source, target):
            host.cores.run(self._costs.copy_gb * self._sizes.packed * size, ended, memory=True)
        transfer(self._clock, source.out, target.in_, nbytes, self.delay(), ended)

    def _busy(self, life: ShardLife, seconds: float, then: Then) -> None:
        """Serves a call with so many seconds of passes through memory; a process that is dead does nothing."""
        self._shard(life).cores.run(self._costs.stream + seconds if life.alive else 0.0, then, memory=True)

    def _way(self, exchange: Exchange) -> _Way:
        return self._ways[exchange.rank, exchange.life.incarnation]

    def _worker(self, rank: int) -> _Host:
        return self._workers[rank // self._options.hosts.workers_per_host]

    def _shard(self, life: ShardLife) -> _Host:
        return self._shards[life.index // self._options.hosts.shards_per_host]


@dataclass
class _Way:
    """From one worker to one life of a shard: what is sent behind a push comes behind it."""

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
