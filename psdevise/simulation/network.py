"""Calls between simulated processes: late, lost, doubled, overtaking each other.

`Transport` is what a simulated cluster asks of whatever carries its calls and takes its time. `Network` here takes what
its faults and a few fixed times say; `measured` takes what real hosts were seen to take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, Protocol

from psdevise.errors import PsdeviseError
from psdevise.server.shard import Shard
from psdevise.simulation.clock import Clock
from psdevise.simulation.faults import Costs, Weather
from psdevise.simulation.witness import Witness
from psdevise.worker.effects import Call, ShardLost

GIVE_UP_SECONDS = 0.15


@dataclass
class ShardLife:
    """One process of one shard. It serves one call after the other."""

    index: int
    incarnation: int
    shard: Shard
    alive: bool = True
    busy_until: float = 0.0


@dataclass
class Ticket:
    """The answers to the calls of one Send, as they come in. `begin`: what is only done once somebody waits."""

    replies: list[Any]
    missing: set[int]
    waiting: list[Callable[[], None]] = field(default_factory=list)
    begin: Callable[[], None] | None = None

    def wait(self) -> None:
        """Somebody waits now."""
        begin, self.begin = self.begin, None
        if begin is not None:
            begin()

    def take(self) -> list[Any]:
        """The replies, once; who still knows the ticket keeps none of them in memory."""
        found, self.replies = self.replies, []
        return found

    def put(self, place: int, reply: Any) -> None:
        """The first answer counts; later ones (the call was doubled, or given up) are dropped."""
        if place not in self.missing:
            return
        self.missing.remove(place)
        self.replies[place] = reply
        if not self.missing:
            for resume in self.waiting:
                resume()


@dataclass
class Exchange:
    """One call of worker `rank` to a life of a shard that it knows, and the place of the answer."""

    rank: int
    call: Call
    life: ShardLife
    ticket: Ticket
    place: int
    on_lost: Callable[[int], object]

    def answer(self, reply: Any) -> None:
        self.ticket.put(self.place, reply)

    def lose(self) -> None:
        """The caller is told that the shard is gone, unless it was answered before."""
        if self.place in self.ticket.missing:
            self.on_lost(self.call.shard)
            self.ticket.put(self.place, ShardLost("the connection broke", where=f"shard {self.call.shard}"))


def exchanges(
    rank: int, calls: tuple[Call, ...], lives: list[ShardLife], on_lost: Callable[[int], object]
) -> tuple[Ticket, list[Exchange]]:
    """The ticket of one Send, and what it is made of."""
    ticket = Ticket([None] * len(calls), set(range(len(calls))))
    pairs = enumerate(zip(calls, lives, strict=True))
    return ticket, [Exchange(rank, call, life, ticket, place, on_lost) for place, (call, life) in pairs]


class Transport(Protocol):
    """Times and calls. A `then` is called when that much simulated time is over, `begin` may be called at once."""

    def delay(self) -> float:
        """Seconds of a small message, one way."""

    def start_seconds(self, role: Literal["worker", "shard"]) -> float:
        """Until a process is there."""

    def compute(self, rank: int, then: Callable[[], None]) -> None:
        """A worker's gradient."""

    def sending(self, calls: tuple[Call, ...]) -> float:
        """Seconds of its own that a worker spends on a Send."""

    def receiving(self, replies: list[Any]) -> float:
        """Seconds of its own that a worker spends on a Receive, once all replies are there."""

    def work(self, rank: int, seconds: float, then: Callable[[], None]) -> None:
        """A worker spends such seconds; on a busy host they take longer."""

    def send(
        self, rank: int, calls: tuple[Call, ...], lives: list[ShardLife], on_lost: Callable[[int], object]
    ) -> Ticket:
        """Issues calls to the processes that the caller knows; `on_lost` is told which of them is gone."""

    def coordinate(self, begin: Callable[[], None]) -> None:
        """A question has come to the coordinator."""

    def save(self, life: ShardLife, copy: Callable[[], None], write: Callable[[], None]) -> None:
        """A shard copies its state for a snapshot, and writes it."""


class Network:
    def __init__(self, clock: Clock, random: Random, weather: Weather, costs: Costs, witness: Witness) -> None:
        self._clock, self._random, self._weather, self._costs = clock, random, weather, costs
        self._witness = witness

    def delay(self) -> float:
        return self._weather.latency + self._weather.jitter * self._random.random()

    def start_seconds(self, role: Literal["worker", "shard"]) -> float:
        return self._costs.start

    def compute(self, rank: int, then: Callable[[], None]) -> None:
        self._clock.after(self._costs.compute, then)

    def sending(self, calls: tuple[Call, ...]) -> float:
        return 0.0

    def receiving(self, replies: list[Any]) -> float:
        return 0.0

    def work(self, rank: int, seconds: float, then: Callable[[], None]) -> None:
        self._clock.after(seconds, then)

    def coordinate(self, begin: Callable[[], None]) -> None:
        begin()

    def save(self, life: ShardLife, copy: Callable[[], None], write: Callable[[], None]) -> None:
        copy()
        self._clock.after(self._costs.write, write)

    def send(
        self, rank: int, calls: tuple[Call, ...], lives: list[ShardLife], on_lost: Callable[[int], object]
    ) -> Ticket:
        ticket, sent = exchanges(rank, calls, lives, on_lost)
        for exchange in sent:
            self._send(exchange)
        return ticket

    def _send(self, exchange: Exchange) -> None:
        draw, weather, life, call = self._random.random(), self._weather, exchange.life, exchange.call

        def answer(reply: Any) -> None:
            if reply is None and not life.alive:
                exchange.lose()
            else:
                exchange.answer(reply)

        def drop(reply: Any) -> None:
            """The answer is lost on its way."""

        if draw < weather.lost:
            self._clock.after(GIVE_UP_SECONDS * self._random.random(), exchange.lose)
            if draw < weather.lost * 2 / 3:  # it arrives all the same, and perhaps much later
                late = GIVE_UP_SECONDS * 4 * self._random.random() if draw < weather.lost / 3 else self.delay()
                self._clock.after(late, lambda: self.serve(life, call, drop))
            return
        self._clock.after(self.delay(), lambda: self.serve(life, call, answer))
        if draw > 1 - weather.doubled:
            self._clock.after(self.delay() * 3, lambda: self.serve(life, call, drop))

    def serve(self, life: ShardLife, call: Call, answer: Callable[[Any], None]) -> None:
        """Now at the shard's process: waits for its turn there, is executed, and the answer goes back."""
        begin = max(self._clock.now, life.busy_until)
        life.busy_until = begin + self._costs.serve

        def execute() -> None:
            reply = answer_of(life, call, self._witness) if life.alive else None
            self._clock.after(self.delay(), lambda: answer(reply))

        self._clock.after(life.busy_until - self._clock.now, execute)


def answer_of(life: ShardLife, call: Call, witness: Witness) -> Any:
    """What a shard answers to a worker's call, now; of a pull a copy."""
    before = life.shard.version
    try:
        reply = getattr(life.shard, call.method)(*call.arguments)
    except PsdeviseError as e:
        reply = e
    if call.method == "pull" and not isinstance(reply, PsdeviseError):
        views = {"dense": reply.dense, "accumulators": reply.accumulators, "buffers": reply.buffers}
        reply = replace(reply, **{k: None if v is None else v.copy() for k, v in views.items()})
    witness.served(life, call, reply, before)
    return () if reply is None else reply
