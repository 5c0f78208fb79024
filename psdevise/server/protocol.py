"""The messages between worker, shard and coordinator: small frozen dataclasses of plain data and NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Outcome = Literal["applied", "repeated", "too_stale", "held"]


class Version(NamedTuple):
    """A shard's state: its incarnation (handed out by the orchestrator, only grows) and its updates."""

    incarnation: int
    counter: int


class Identity(NamedTuple):
    """Names a push for ever. All of the sender's pushes below `floor` have been answered for good, so
    that a shard needs to remember only those above it."""

    worker: int
    incarnation: int
    sequence: int
    floor: int


class Turn(NamedTuple):
    """At staleness 0: the step a push belongs to, and whose pushes make its one update."""

    step: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Gradient:
    """What one shard gets of a push. `dense` is its range of the arena; `rows` maps a table to the row
    numbers on this shard (without repeats: a row's gradients are summed before they are sent) and their
    values [n, dim]. `examples` that it was computed from: a shard counts what it has applied. `bound`: no value of
    `dense` is larger in magnitude, as its sender has found; without one (or with one that is no number) the shard looks
    at all of them."""

    dense: Array | None = None
    rows: dict[str, tuple[Rows, Array]] = field(default_factory=dict)
    examples: int = 0
    bound: float = inf

    @property
    def nbytes(self) -> int:
        dense = 0 if self.dense is None else self.dense.nbytes
        return dense + sum(ids.nbytes + values.nbytes for ids, values in self.rows.values())


class Landing(NamedTuple):
    """Memory of the worker's own that a pull may be copied into at once: its range of the arena, and of the
    accumulators where it keeps them."""

    dense: Array
    accumulators: Array | None


@dataclass(frozen=True)
class Pulled:
    """One version of a shard. `dense` is None when the version has not moved. `accumulators` is the
    optimizer's sum of squares in the shape of `dense`, when it was asked for."""

    version: Version
    dense: Array | None = None
    rows: dict[str, Array] = field(default_factory=dict)
    accumulators: Array | None = None
    row_accumulators: dict[str, Array] = field(default_factory=dict)
    buffers: Array | None = None


@dataclass(frozen=True)
class Ack:
    """`held`: the push waits on this shard for the other members of its turn and is not yet answered. `examples` that
    the shard has applied in all, up to this answer: what of them a snapshot lacks is what its death takes back."""

    version: Version
    lag: int
    outcome: Outcome
    examples: int = 0
