"""The order in which a worker's loop fetches, computes and pushes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from psdevise.server.ledger import Ledger
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Version
from psdevise.server.shard import Shard
from psdevise.worker.client import Client
from psdevise.worker.downpour import Downpour, DownpourOptions
from psdevise.worker.effects import Ask, Call, NextBatch, Open, Poll, Receive, Report, Send
from psdevise.worker.replica import Replica
from psdevise.worker.task import batches
from tests import toy


class SlowShard:
    """Makes a pull when it is sent, as one on another machine does, and a push only when somebody waits for it."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.pushed = 0
        self.seen: list[tuple[int, int]] = []  # by each pull: the pushes that were sent before it, and were in it

    def send(self, calls: tuple[Call, ...]) -> list[Any]:
        return [self._call(c) if c.method == "pull" else c for c in calls]

    def receive(self, ticket: list[Any]) -> list[Any]:
        return [self.shard.push(*t.arguments) if isinstance(t, Call) else t for t in ticket]

    def _call(self, call: Call) -> Any:
        pulled = self.shard.pull(*call.arguments)
        self.seen.append((self.pushed, pulled.version.counter))
        return pulled


@pytest.mark.parametrize(("n_fetch", "n_push"), [(4, 4), (1, 4), (2, 4), (3, 2), (1, 1)])
def test_a_replica_that_steps_by_itself_never_loses_its_own_steps(n_fetch: int, n_push: int) -> None:
    """What it has pushed is in what it fetches next: nobody else has these steps any more."""
    task = toy.task(epochs=2)
    layout = task.layout
    optimizer = OptimizerOptions(rate=0.1)
    host = SlowShard(Shard(layout, 0, optimizer, 1))
    options = DownpourOptions(n_fetch=n_fetch, n_push=n_push, local_step="adagrad")
    replica = Replica(layout, local_step="adagrad")
    loop = Downpour(task, replica, Client(layout, replica, 0, 1, 10.0, 1 << 20), options, (0, 0), optimizer.rate).run()
    ledger = Ledger(task.slices, task.epochs, 0, 60.0)
    source: Iterator[Any] = iter(())
    value: Any = None
    while True:
        try:
            effect = loop.send(value)
        except StopIteration:
            break
        value = None
        match effect:
            case Send(calls):
                value = host.send(calls)
                host.pushed += sum(c.method == "push" for c in calls)
            case Receive(ticket):
                value = host.receive(ticket)
            case Poll():
                value = False
            case Open(taken):
                source = batches(task, (0, 0), taken)
            case NextBatch():
                value = next(source, None)
            case Ask("lease"):
                value = ledger.lease(0, 0.0)
            case Ask("finish", (taken, refused)):
                value = ledger.finish(0, taken, refused)
            case Report():
                value = True
    assert host.shard.version == Version(1, host.pushed)
    assert len(host.seen) > 3
    assert all(sent == applied for sent, applied in host.seen)
