"""The order in which a worker's loop fetches, computes and pushes."""

from __future__ import annotations

from typing import Any

import pytest

from psdevise.config import build
from psdevise.runtime.inprocess import _Worker
from psdevise.server.coordinator import Coordinator
from psdevise.server.ledger import Ledger
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Version
from psdevise.server.shard import Shard
from psdevise.worker.client import Client
from psdevise.worker.downpour import SMALL_BYTES, Downpour, DownpourOptions
from psdevise.worker.effects import Call, Poll, Receive, Send
from psdevise.worker.replica import Replica
from tests import toy


class SlowShard(_Worker):
    """A host whose shard makes a pull when it is sent, as one on another machine does, and a push only when the worker
    waits for it."""

    pushed = 0

    def _handle(self, effect: Any) -> Any:
        match effect:
            case Send(calls):
                found = [self._pull(c) if c.method == "pull" else c for c in calls]
                self.pushed += sum(c.method == "push" for c in calls)
                return found
            case Receive(ticket):
                return [self._shards[0].push(*t.arguments) if isinstance(t, Call) else t for t in ticket]
            case Poll():
                return False
        return super()._handle(effect)

    def _pull(self, call: Call) -> Any:
        pulled = self._shards[0].pull(*call.arguments)
        assert pulled.version == Version(1, self.pushed)  # all that was pushed is in what is fetched
        return pulled


@pytest.mark.parametrize(("n_fetch", "n_push"), [(4, 4), (1, 4), (2, 4), (3, 2), (1, 1)])
def test_a_replica_that_steps_by_itself_never_loses_its_own_steps(n_fetch: int, n_push: int) -> None:
    task = toy.task()
    optimizer = OptimizerOptions(rate=0.1)
    shard = Shard(task.layout, 0, optimizer, 1)
    options = DownpourOptions(n_fetch=n_fetch, n_push=n_push, local_step="adagrad")
    replica = Replica(task.layout, local_step="adagrad")
    client = Client(task.layout, replica, 0, 1, 10.0, 1 << 20)
    loop = Downpour(task, replica, client, options, (0, 0), optimizer.rate).run()
    coordinator = Coordinator(Ledger(task.slices, task.epochs, 0, 60.0), None, 0, 1)
    coordinator.join(0, 1, 0.0)
    worker = SlowShard(0, 1, loop, task, (0, 0), [shard], coordinator)
    while not worker.ended:
        worker.turn()
    assert shard.version == Version(1, worker.pushed)
    assert shard.examples == task.epochs * toy.ROWS


@pytest.mark.parametrize(
    ("overlap", "staleness", "nbytes", "ahead"),
    [
        ("auto", "unbounded", SMALL_BYTES, False),
        ("auto", "unbounded", SMALL_BYTES + 4, True),
        ("auto", 1, SMALL_BYTES + 4, False),
        (True, "unbounded", 4, True),
        (False, "unbounded", SMALL_BYTES + 4, False),
    ],
)
def test_small_models_fetch_after_their_push(overlap: Any, staleness: Any, nbytes: int, ahead: bool) -> None:
    assert DownpourOptions(overlap=overlap, staleness=staleness).fetches_ahead(nbytes) == ahead


@pytest.mark.parametrize("overlap", ["auto", True, False])
def test_overlap_is_configured_by_name_or_as_true_or_false(overlap: Any) -> None:
    assert build(DownpourOptions, {"overlap": overlap}).overlap == overlap
