"""One simulated worker: drives the Downpour loop and serves its effects, as the Ray actor does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from psdevise.errors import DeadlineExceeded, PsdeviseError
from psdevise.server.ledger import Slice
from psdevise.simulation.network import ShardLife, Ticket
from psdevise.worker.client import Client
from psdevise.worker.downpour import Downpour
from psdevise.worker.effects import Ask, Call, NextBatch, Open, Pause, Poll, Receive, Replaced, Report, Send
from psdevise.worker.replica import Replica
from psdevise.worker.task import Task, batches

if TYPE_CHECKING:
    from psdevise.simulation.cluster import SimulatedCluster

_LATER: Final = object()


class SimulatedWorker:
    """
    Attributes:
        fate: None while it runs; then "" (its work is done), a reason, or what its loop raised.
        open: the slice that it reads, and `position` the batch that it computed last.
    """

    def __init__(self, cluster: SimulatedCluster, rank: int, incarnation: int) -> None:
        self.rank, self.incarnation = rank, incarnation
        self.fate: str | PsdeviseError | None = None
        self.alive, self.running, self.hangs_until = True, False, 0.0
        self.open: list[tuple[Slice, int]] = []
        self._cluster, self._clock = cluster, cluster.clock
        self._links: dict[int, ShardLife] = {}
        self._reader: Iterator[tuple[Any, bool]] = iter(())
        self._place: tuple[Slice, int] | None = None
        self._computing: list[tuple[Slice, int]] = []
        self._counters: dict[str, float] = {}
        self._gauges: dict[str, float] = {}
        self._reported = 0.0
        self._current = True
        self._said_until = 0.0  # what one worker says to the coordinator arrives in order

    def begin(self) -> None:
        job = self._cluster.job
        self._task: Task = job.build()
        self._task.layout = self._cluster.layout
        self._count_gradients(self._task)
        self.replica = Replica(self._cluster.layout, local_step=job.downpour.local_step)
        in_flight = int(job.downpour.max_in_flight_mb * 1e6)
        self.client = Client(
            self._cluster.layout, self.replica, self.rank, self.incarnation, job.downpour.deadline, in_flight
        )
        loop = Downpour(
            self._task, self.replica, self.client, job.downpour, job.key, job.optimizer.rate, job.optimizer.eps
        )
        self._loop = loop.run()
        self._go_on(None)

    def die(self) -> None:
        self.alive = False
        self._cluster.fallen = True

    # ------------------------------------------------------------------ the loop

    def _go_on(self, value: Any) -> None:
        """Drives the loop until it has to wait for something."""
        while self.alive:
            if self._clock.now < self.hangs_until:
                if self.hangs_until != float("inf"):
                    self._clock.after(self.hangs_until - self._clock.now, partial(self._go_on, value))
                return
            before = self._gradients
            try:
                effect = self._loop.send(value)
            except StopIteration:
                self._report()
                self._ask("leave", (), lambda answer: self._end(""))
                return
            except Replaced:
                return self._end("its lease ran out")
            except PsdeviseError as e:
                return self._end(e)
            if self._gradients > before:
                self._cluster.witness.computed(self)
                self._cluster.network.compute(self.rank, partial(self._after, effect))
                return
            value = self._serve(effect)
            if value is _LATER:
                return

    def _after(self, effect: Any) -> None:
        if self.alive:
            value = self._serve(effect)
            if value is not _LATER:
                self._go_on(value)

    def _end(self, fate: str | PsdeviseError) -> None:
        if self.alive:
            self.fate = fate
            self._cluster.fallen = True

    def _serve(self, effect: Any) -> Any:
        match effect:
            case Send(calls):
                seconds = self._cluster.network.sending(calls)
                if not seconds:
                    return self._send(calls)
                self._cluster.network.work(self.rank, seconds, lambda: self._sent(calls))
                return _LATER
            case Receive(ticket):
                return self._receive(ticket)
            case Poll(ticket):
                return not ticket.missing
            case Open(taken):
                self._reader = batches(self._task, self._cluster.job.key, taken)
                self._place = taken, taken.position
                return None
            case NextBatch():
                return self._next()
            case Report(figures, gauges):
                for name, value in figures.items():
                    self._counters[name] = self._counters.get(name, 0.0) + value
                self._gauges = gauges
                self._report_if_due()
                return self._current
            case Ask(question, arguments):
                if question == "pushed":
                    self._ask(question, arguments, lambda answer: None)
                    return None
                self._ask(question, arguments, self._go_on)
                return _LATER
            case Pause(seconds):
                self._report_if_due()
                self._clock.after(seconds, lambda: self._go_on(None))
                return _LATER
        raise TypeError(f"no such effect: {effect!r}")

    # ------------------------------------------------------------------ data

    def _next(self) -> tuple[Any, bool] | None:
        found = next(self._reader, None)
        if found is not None:
            assert self._place is not None
            self._computing.append(self._place)
            self._place = self._place[0], self._place[1] + 1
        return found

    def _count_gradients(self, task: Task) -> None:
        self._gradients = 0
        gradient = task.gradient

        def counted(*arguments: Any) -> Any:
            self._gradients += 1
            self.open.append(self._computing.pop(0))
            return gradient(*arguments)

        task.gradient = counted  # type: ignore[method-assign, assignment]

    # ------------------------------------------------------------------ shards

    def _sent(self, calls: tuple[Call, ...]) -> None:
        if self.alive:
            self._go_on(self._send(calls))

    def _send(self, calls: tuple[Call, ...]) -> Ticket:
        self._cluster.witness.sent(self, calls)
        for call in calls:
            self._links.setdefault(call.shard, self._cluster.known[call.shard])
        lives = [self._links[call.shard] for call in calls]
        return self._cluster.network.send(self.rank, calls, lives, lambda shard: self._links.pop(shard, None))

    def _receive(self, ticket: Ticket) -> Any:
        ticket.wait()
        if not ticket.missing:
            replies = ticket.take()
            if not (seconds := self._cluster.network.receiving(replies)):
                return replies
            self._cluster.network.work(self.rank, seconds, lambda: self._go_on(replies))
            return _LATER
        ticket.waiting.append(lambda: self._received(ticket.take()))
        deadline = self._cluster.job.downpour.deadline
        self._clock.after(deadline, lambda: self._give_up(ticket, deadline))
        return _LATER

    def _received(self, replies: list[Any]) -> None:
        if seconds := self._cluster.network.receiving(replies):
            self._cluster.network.work(self.rank, seconds, lambda: self._go_on(replies))
        else:
            self._go_on(replies)

    def _give_up(self, ticket: Ticket, deadline: float) -> None:
        for place in list(ticket.missing):
            ticket.put(place, DeadlineExceeded(f"no answer within {deadline:g} s"))

    # ------------------------------------------------------------------ coordinator

    def _ask(self, question: str, arguments: tuple[Any, ...], answered: Any) -> None:
        cluster = self._cluster
        self._said_until = max(self._said_until, self._clock.now + cluster.network.delay())

        def say() -> None:
            answer = cluster.answer(question, (self.rank, self.incarnation, *arguments))
            cluster.witness.asked(self, question, arguments, answer)
            self._clock.after(cluster.network.delay(), lambda: answered(answer))

        self._clock.after(self._said_until - self._clock.now, lambda: cluster.network.coordinate(say))

    def _report_if_due(self) -> None:
        if self._clock.now - self._reported > self._cluster.job.report_seconds:
            self._report()

    def _report(self) -> None:
        def answered(current: bool) -> None:
            self._current &= current

        self._ask("report", (self._counters, self._gauges), answered)
        self._counters, self._reported = {}, self._clock.now
