"""All workers in turn, in this process, without Ray: the smallest host, and a deterministic one."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from psdevise.errors import Interrupted, PsdeviseError
from psdevise.events import Listener
from psdevise.runtime.job import Interrupt, Job, Trained
from psdevise.runtime.progress import Meter
from psdevise.server import snapshot
from psdevise.server.coordinator import Coordinator
from psdevise.server.incarnations import Incarnations
from psdevise.server.ledger import Ledger
from psdevise.server.shard import Shard
from psdevise.server.start import begin_phase
from psdevise.worker.client import Client
from psdevise.worker.downpour import Downpour
from psdevise.worker.effects import Ask, Call, NextBatch, Open, Pause, Poll, Receive, Report, Send
from psdevise.worker.replica import Replica
from psdevise.worker.task import batches


class InProcess:
    """Drives every worker's generator until it reports a step or pauses, then the next one's."""

    def close(self) -> None:
        """Nothing is held."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained:
        task = job.build()
        layout = replace(task.layout, shards=job.cluster.num_shards)
        incarnations = Incarnations(job.incarnations)
        start = begin_phase(job.snapshots, layout, task.initial)
        shards = [
            Shard(
                layout,
                i,
                job.optimizer,
                incarnation,
                snapshot.load_for(start.folder, start.manifest, layout, i),
                job.lag,
            )
            for i, incarnation in enumerate(incarnations.take(layout.shards))
        ]
        options, key = job.downpour, (job.seed, job.phase_number)
        ledger = Ledger(task.slices, task.epochs, job.seed, job.cluster.lease_seconds)
        coordinator = Coordinator(ledger, options.bound, options.warm_start, job.cluster.num_workers)
        if start.coordinator is not None:
            coordinator.restore(start.coordinator)
        workers: list[_Worker] = []
        for rank, incarnation in enumerate(incarnations.take(job.cluster.num_workers)):
            own = task if rank == 0 else job.build()
            own.layout = layout
            replica = Replica(layout, local_step=options.local_step)
            in_flight = int(options.max_in_flight_mb * 1e6)
            client = Client(layout, replica, rank, incarnation, options.deadline, in_flight)
            loop = Downpour(own, replica, client, options, key, job.optimizer.rate, job.optimizer.eps)
            coordinator.join(rank, incarnation, time.monotonic())
            workers.append(_Worker(rank, incarnation, loop.run(), own, key, shards, coordinator))

        meter = Meter(job, on_event, task.epochs)
        number, last_snapshot = start.number, time.monotonic()
        while any(not w.ended for w in workers):
            for worker in workers:
                worker.turn()
            if interrupt.is_set():
                coordinator.stop()
                if coordinator.rounds is not None and coordinator.rounds.at_boundary:
                    break
            meter.show(coordinator.status(time.monotonic()), [s.stats() for s in shards])
            due = time.monotonic() - last_snapshot > job.cluster.snapshot_seconds
            if due and (coordinator.rounds is None or coordinator.rounds.at_boundary):
                number, last_snapshot = number + 1, time.monotonic()
                _save(start.folder, number, layout.plain(), coordinator, shards)
        _save(start.folder, number + 1, layout.plain(), coordinator, shards)
        meter.show(coordinator.status(time.monotonic()), [s.stats() for s in shards], last=True)
        if interrupt.is_set() and not ledger.done:
            raise Interrupted("stopped by the user", mend="give the same command again to go on")
        return Trained(snapshot.gather(layout, [s.snapshot() for s in shards]), dict(vars(ledger.audit)), meter.bill())


def _save(folder: str, number: int, layout: dict[str, Any], coordinator: Coordinator, shards: list[Shard]) -> None:
    state = coordinator.state()  # the ledger first: what finishes meanwhile is repeated, never lost
    checksums = [snapshot.write_shard(snapshot.shard_path(folder, number, s.index), s.snapshot()) for s in shards]
    snapshot.commit(folder, number, {"layout": layout, "checksums": checksums, "coordinator": state})


class _Worker:
    """One generator and its pending value."""

    def __init__(
        self,
        rank: int,
        incarnation: int,
        loop: Generator[Any, Any, None],
        task: Any,
        key: tuple[int, int],
        shards: list[Shard],
        coordinator: Coordinator,
    ) -> None:
        self._rank, self._incarnation, self._loop = rank, incarnation, loop
        self._task, self._key, self._shards, self._coordinator = task, key, shards, coordinator
        self._batches: Iterator[tuple[Any, bool]] = iter(())
        self._value: Any = None
        self.ended = False

    def turn(self) -> None:
        """Goes on until the end of a step, or until the worker has to wait for another."""
        while not self.ended:
            try:
                effect = self._loop.send(self._value)
            except StopIteration:
                self.ended = True
                self._coordinator.leave(self._rank, self._incarnation)
                return
            self._value = self._handle(effect)
            if isinstance(effect, (Pause, Report)):
                return

    def _handle(self, effect: Any) -> Any:
        now = time.monotonic()
        match effect:
            case Send(calls):
                return [_call(self._shards, c) for c in calls]
            case Receive(ticket):
                return ticket
            case Poll():
                return True
            case Open(taken):
                self._batches = batches(self._task, self._key, taken)
            case NextBatch():
                return next(self._batches, None)
            case Report(figures, gauges):
                return self._coordinator.report(self._rank, self._incarnation, figures, gauges, now)
            case Ask(question, arguments):
                return self._coordinator.answer(question, (self._rank, self._incarnation, *arguments), now)
        return None


def _call(shards: list[Shard], call: Call) -> Any:
    try:
        return getattr(shards[call.shard], call.method)(*call.arguments)
    except PsdeviseError as e:
        return e
