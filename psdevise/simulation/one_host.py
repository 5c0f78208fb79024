"""Calls on one machine, with what they cost: as `psdevise.runtime.local` makes them.

A worker copies a shard's parameters itself, in the moment in which it waits for them; a copy during which the shard
changed is torn and made again, and after three of them the shard holds still. A push is checked and applied under the
shard's lock. All of that, and what Ray's calls to the coordinator take, is done by the cores that there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal

from psdevise.server.protocol import Version
from psdevise.simulation.clock import Clock
from psdevise.simulation.hardware import Desk, Processor, Then
from psdevise.simulation.network import Exchange, ShardLife, Ticket, answer_of, exchanges
from psdevise.simulation.options import SimulateOptions
from psdevise.simulation.sizes import Sizes, Stepping
from psdevise.simulation.witness import Witness
from psdevise.worker.effects import Call

ATTEMPTS, PATIENCE_SECONDS = 3, 0.02  # as runtime.local


class OneHost:
    """A Transport (`psdevise.simulation.network`)."""

    def __init__(self, options: SimulateOptions, clock: Clock, random: Random, witness: Witness) -> None:
        self._options, self._costs, self._sizes = options, options.costs, Sizes(options)
        self._clock, self._witness = clock, witness
        self._step = Stepping(options, clock, random)
        self._cores = Processor(clock, options.hosts.cores, options.hosts.streams)
        self._coordinator = Desk(clock)
        self._locks: dict[int, Desk] = defaultdict(lambda: Desk(clock))  # by the shard's incarnation
        self._changing: set[int] = set()
        self._links: dict[tuple[int, int], _Link] = defaultdict(_Link)

    def busy(self) -> dict[str, list[float]]:
        """Seconds of use so far, of each of what may be the bottleneck."""
        return {
            "cores": [self._cores.busy],
            "shard": [lock.busy for lock in self._locks.values()],
            "coordinator": [self._coordinator.busy],
        }

    # ------------------------------------------------------------------ time

    def delay(self) -> float:
        return self._options.hosts.latency

    def start_seconds(self, role: Literal["worker", "shard"]) -> float:
        return self._sizes.start_seconds(role)

    def compute(self, rank: int, then: Then) -> None:
        self._step(self._cores, then)

    def work(self, rank: int, seconds: float, then: Then) -> None:
        self._cores.run(seconds, then)

    def sending(self, calls: tuple[Call, ...]) -> float:
        return sum(self._costs.message for c in calls if c.method != "pull")

    def receiving(self, replies: list[Any]) -> float:
        return 0.0  # a pull was copied on its way

    def coordinate(self, begin: Then) -> None:
        def serve(leave: Then) -> None:
            def answer() -> None:
                begin()
                leave()

            self._cores.run(self._costs.call, answer)

        self._cores.run(self._costs.call, lambda: self._coordinator.enter(serve))

    def save(self, life: ShardLife, copy: Then, write: Then) -> None:
        def serve(leave: Then) -> None:
            self._cores.run(self._costs.copy_gb * self._sizes.state, partial(copied, leave), memory=True)

        def copied(leave: Then) -> None:
            copy()
            leave()
            self._clock.after(self._costs.disk_gb * self._sizes.state, write)

        self._locks[life.incarnation].enter(serve)

    # ------------------------------------------------------------------ calls

    def send(
        self, rank: int, calls: tuple[Call, ...], lives: list[ShardLife], on_lost: Callable[[int], object]
    ) -> Ticket:
        ticket, sent = exchanges(rank, calls, lives, on_lost)
        pulls = [exchange for exchange in sent if exchange.call.method == "pull"]
        for exchange in sent:
            if exchange.call.method != "pull":
                self._push(exchange)
        if pulls:
            ticket.begin = lambda: self._pull_in_order(iter(pulls))
        return ticket

    def _pull_in_order(self, pulls: Iterator[Exchange]) -> None:
        """One shard after the other, as `runtime.wire` receives."""
        exchange = next(pulls, None)
        if exchange is not None:
            copy = lambda: self._copy(exchange, 0, partial(self._pull_in_order, pulls))  # noqa: E731
            self._link(exchange).after_pushes(self._clock, copy)

    def _copy(self, exchange: Exchange, attempt: int, then: Then) -> None:
        life = exchange.life
        before = life.shard.version
        if not life.alive:
            exchange.lose()
            then()
        elif before == exchange.call.arguments[1]:
            self._answer(exchange)
            then()
        elif attempt == ATTEMPTS or life.incarnation in self._changing:  # then all attempts fail at once
            self._hold(exchange, then)
        else:
            seconds = self._costs.copy_gb * self._sizes.pull(moved=True)
            self._cores.run(seconds, partial(self._copied, exchange, attempt, before, then), memory=True)

    def _copied(self, exchange: Exchange, attempt: int, before: Version, then: Then) -> None:
        life = exchange.life
        if life.incarnation in self._changing or life.shard.version != before:
            self._copy(exchange, attempt + 1, then)
        else:
            self._answer(exchange)
            then()

    def _hold(self, exchange: Exchange, then: Then) -> None:
        """The shard holds still while the worker copies."""

        def serve(leave: Then) -> None:
            def copied() -> None:
                self._answer(exchange)
                leave()
                then()

            self._cores.run(self._costs.copy_gb * self._sizes.pull(moved=True), copied, memory=True)

        self._cores.run(self._costs.serve, lambda: self._locks[exchange.life.incarnation].enter(serve))

    def _push(self, exchange: Exchange) -> None:
        life, costs, size = exchange.life, self._costs, self._sizes.push

        def serve(leave: Then) -> None:
            def change() -> None:
                self._changing.add(life.incarnation)
                self._cores.run(costs.update_gb * size, done, memory=True)

            def done() -> None:
                self._changing.discard(life.incarnation)
                self._answer(exchange)
                self._link(exchange).answered()
                leave()

            self._cores.run(costs.check_gb * size if life.alive else 0.0, change, memory=True)

        self._link(exchange).open += 1
        self._cores.run(costs.serve, lambda: self._locks[life.incarnation].enter(serve))

    def _answer(self, exchange: Exchange) -> None:
        if exchange.life.alive:
            exchange.answer(answer_of(exchange.life, exchange.call, self._witness))
        else:
            exchange.lose()

    def _link(self, exchange: Exchange) -> _Link:
        return self._links[exchange.rank, exchange.life.incarnation]


@dataclass
class _Link:
    """One worker's way to one life of a shard: its pushes without an answer, and who waits until there are none."""

    open: int = 0
    waiting: list[Then] = field(default_factory=list)

    def answered(self) -> None:
        self.open -= 1
        if not self.open:
            waiting, self.waiting = self.waiting, []
            for go_on in waiting:
                go_on()

    def after_pushes(self, clock: Clock, then: Then) -> None:
        """Lets the worker's own pushes be applied first, for a little while."""
        if not self.open:
            then()
            return
        left = [then]

        def go_on() -> None:
            while left:
                left.pop()()

        self.waiting.append(go_on)
        clock.after(PATIENCE_SECONDS, go_on)
