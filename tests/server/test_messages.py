"""Whatever a message holds, a shard answers it or refuses it by name, and what it refuses leaves no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from psdevise.errors import PushRefused
from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Ack, Gradient, Identity, Turn, Version
from psdevise.server.shard import Shard

LAYOUT = Layout(dense=(Dense("w", (6,)),), tables=(Table("t", 4, 2),))

floats = arrays.arrays(
    st.sampled_from([np.float32, np.float32, np.float64, np.int64, np.bool_]),
    st.sampled_from([(6,), (6,), (5,), (3, 2), (0,), ()]),
)
ids = arrays.arrays(
    st.sampled_from([np.int64, np.int64, np.int32, np.float32]),
    st.sampled_from([(2,), (2,), (1,), (2, 1), (0,), ()]),
    elements=st.integers(-2, 5),
)
values = arrays.arrays(st.sampled_from([np.float32, np.float64]), st.sampled_from([(2, 2), (1, 2), (2, 1), (0, 2), ()]))
gradients = st.builds(
    Gradient,
    st.one_of(st.none(), floats),
    st.dictionaries(st.sampled_from(["t", "t", "unknown"]), st.tuples(ids, values), max_size=2),
)
numbers = st.integers(-1, 3)
identities = st.builds(Identity, numbers, numbers, numbers, numbers)
versions = st.builds(Version, numbers, numbers)
turns = st.one_of(st.none(), st.builds(Turn, numbers, st.sampled_from([(0,), (0, 1), (), (0, 1, 2)])))
pushes = st.tuples(gradients, identities, versions, st.just(1.0), turns)


def content(shard: Shard) -> list[Any]:
    state = shard.snapshot()
    return [state.version, *(value.tobytes() for _, value in sorted(state.tensors.items()))]


@settings(max_examples=100, deadline=None)
@given(st.lists(pushes, min_size=1, max_size=6))
def test_any_push_is_answered_or_refused_and_what_is_refused_changes_nothing(messages: list[Any]) -> None:
    shard = Shard(LAYOUT, 0, OptimizerOptions(rate=0.1), 1)
    applied: set[tuple[int, int, int]] = set()
    for message in messages:
        identity, turn = message[1], message[4]
        before = content(shard)
        try:
            reply = shard.push(*message)
        except PushRefused:
            assert content(shard) == before
            continue
        assert isinstance(reply, Ack)
        if reply.outcome in ("repeated", "held", "too_stale"):
            assert content(shard) == before
        if turn is None and reply.outcome == "applied":
            assert identity[:3] not in applied
            applied.add(identity[:3])
        assert all(np.isfinite(value).all() for value in shard.snapshot().tensors.values())
