"""What a worker's client makes of answers that a shard's host could give."""

from __future__ import annotations

from typing import Any

import numpy as np

from psdevise.server.layout import Dense, Layout
from psdevise.server.protocol import Ack, Pulled, Turn, Version
from psdevise.worker.client import Client
from psdevise.worker.effects import Ask, Call, Receive, Send
from psdevise.worker.replica import Replica

N = 4


def test_what_a_dead_shard_had_applied_is_told_though_its_next_life_answers_first() -> None:
    """At staleness 0: a push was held, its turn was completed and saved, and the shard died before the worker asked."""
    layout = Layout(dense=(Dense("w", (N,)),))
    client = Client(layout, Replica(layout), 0, 5, 10.0, 1 << 20)
    told: list[tuple[Any, ...]] = []

    def drive(loop: Any, life: int, push: Ack, asked_again: Ack) -> None:
        """Answers the client as life `life` of the shard does, until it needs nothing more."""
        value: Any = None
        calls: tuple[Call, ...] = ()
        while True:
            try:
                effect = loop.send(value)
            except StopIteration:
                return
            value = None
            if isinstance(effect, Send):
                value = calls = effect.calls
            elif isinstance(effect, Receive):
                replies = {"pull": Pulled(Version(life, 1), np.zeros(N, np.float32)), "push": push}
                value = [(replies | {"answer": asked_again})[c.method] for c in calls]
            elif isinstance(effect, Ask):
                told.append(effect.arguments)

    def push(step: int) -> Any:
        yield from client.push(np.zeros(N, np.float32), {}, 8, 1.0, Turn(step, (0, 1)))
        yield from client.settle_all()

    unused = Ack(Version(3, 0), 0, "held")
    drive(client.fetch({}), 3, unused, unused)
    drive(push(0), 3, Ack(Version(3, 1), 0, "applied", 100), unused)
    drive(push(1), 3, Ack(Version(3, 1), 0, "held"), Ack(Version(4, 2), 0, "applied", 60))
    assert told == []
    drive(client.fetch({}), 4, unused, unused)
    assert told == [(0, 3, 100, 4)]
