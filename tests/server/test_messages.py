"""Whatever a message holds, a shard answers it or refuses it by name, and what it refuses leaves no trace."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psdevise.errors import PushRefused
from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Ack, Gradient, Identity, Turn, Version
from psdevise.server.shard import Shard

ANOTHERS_TURN_ENDS = 109120678  # a refused push of a turn in which another is held
LAYOUT = Layout(dense=(Dense("w", (6,)),), tables=(Table("t", 4, 2),))
F32, F64, I64, I32 = np.float32, np.float64, np.int64, np.int32


def array(r: Random, types: list[Any], shapes: list[tuple[int, ...]]) -> Any:
    kind, shape = r.choice(types), r.choice(shapes)
    made = np.array([r.randint(-2, 5) for _ in range(int(np.prod(shape)))], np.float64).reshape(shape).astype(kind)
    if r.random() < 0.1 and made.size and kind in (F32, F64):
        made.flat[0] = r.choice([np.nan, np.inf])
    return made


def push(r: Random) -> tuple[Any, ...]:
    dense = array(r, [F32, F32, F64, I64], [(6,), (6,), (5,), (3, 2), (0,), ()]) if r.random() < 0.8 else None
    rows = {
        name: (
            array(r, [I64, I64, I32, F32], [(2,), (2,), (1,), (2, 1), (0,), ()]),
            array(r, [F32, F32, F64], [(2, 2), (2, 2), (1, 2), (2, 1), (0, 2), ()]),
        )
        for name in r.choice([[], ["t"], ["t"], ["t", "unknown"]])
    }
    identity = Identity(*(r.randint(-1, 3) for _ in range(4)))
    turn = Turn(r.randint(-1, 3), r.choice([(0,), (0, 1), (), (0, 1, 2)])) if r.random() < 0.5 else None
    return Gradient(dense, rows), identity, Version(r.choice([0, 1, 1, 1]), r.randint(0, 1)), 1.0, turn


def content(shard: Shard) -> list[Any]:
    state = shard.snapshot()
    return [state.version, *(value.tobytes() for _, value in sorted(state.tensors.items()))]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
@example(ANOTHERS_TURN_ENDS)
def test_any_push_is_answered_or_refused_and_what_is_refused_changes_nothing(seed: int) -> None:
    r = Random(seed)
    shard = Shard(LAYOUT, 0, OptimizerOptions(rate=0.1), 1)
    applied: set[tuple[int, ...]] = set()
    for _ in range(8):
        message = push(r)
        identity, turn = message[1], message[4]
        before, updates = content(shard), shard.counts["applied"]
        try:
            reply = shard.push(*message)
        except PushRefused:
            # A refused push counts as in: others of its turn, held until then, may make their update now.
            others_stepped = turn is not None and shard.counts["applied"] > updates
            assert others_stepped or content(shard) == before
            continue
        assert isinstance(reply, Ack)
        if reply.outcome in ("repeated", "held", "too_stale"):
            assert content(shard) == before
        if turn is None and reply.outcome == "applied":
            assert identity[:3] not in applied
            applied.add(identity[:3])
        assert all(np.isfinite(value).all() for value in shard.snapshot().tensors.values())
