"""What the worker asks its host for. The loop yields an effect and is sent its result.

A host (Ray, in one process, simulated) supplies transport, time, data prefetching and the coordinator; it
raises nothing into the loop but `Interrupted`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from psdevise.errors import PsdeviseError
from psdevise.server.ledger import Slice
from psdevise.server.protocol import Landing

Ticket = Any
T = TypeVar("T")
Effects = Generator["Effect", Any, T]


class ShardLost(PsdeviseError):
    """The shard's process died or cannot be reached; another life of it may come."""


class Replaced(PsdeviseError):
    """This worker's lease ran out and its rank was given to another incarnation."""


@dataclass(frozen=True)
class Call:
    """One method of one shard. Replies are the method's value, or the PsdeviseError it raised.

    A host that can may copy what a pull brings straight into `into`, while it serves `Receive`, and says so by
    returning these very arrays; others take no notice of it.
    """

    shard: int
    method: str
    arguments: tuple[Any, ...]
    into: Landing | None = None


@dataclass(frozen=True)
class Send:
    """Issues all calls, waits for none → Ticket."""

    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Receive:
    """Waits for a ticket's replies, until the configured deadline → list of values or errors. `of` tells the host what
    the time is spent on."""

    ticket: Ticket
    of: Literal["pull", "push"] = "pull"


@dataclass(frozen=True)
class Poll:
    """→ whether `Receive` would not wait."""

    ticket: Ticket


@dataclass(frozen=True)
class Ask:
    """A question to the coordinator (a method of `Coordinator`, its arguments behind worker and
    incarnation) → its answer."""

    question: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Open:
    """Begins to read a slice, ahead of the compute where the host can → None."""

    slice: Slice


@dataclass(frozen=True)
class NextBatch:
    """→ (batch, whether it is the slice's last), or None when the slice has no batch left."""


@dataclass(frozen=True)
class Report:
    """Counters and gauges of one step → False if this worker has been replaced."""

    figures: dict[str, float]
    gauges: dict[str, float]


@dataclass(frozen=True)
class Pause:
    """Lets others go on; at most `seconds` → None."""

    seconds: float


Effect = Send | Receive | Poll | Ask | Open | NextBatch | Report | Pause
