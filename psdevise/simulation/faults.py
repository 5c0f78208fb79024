"""What goes wrong in a simulated run, and when. All of it is data, so that a schedule can be printed and cut down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["worker dies", "worker hangs", "shard dies", "driver dies", "interrupt", "disk full", "file cut"]


class DriverKilled(BaseException):
    """The driver's process is gone, and with it coordinator, shards and workers."""


@dataclass(frozen=True)
class Fault:
    """`who`: rank of the worker or shard, modulo how many there are. `seconds`: how long a hang lasts. For a
    cut file, `who` counts from the newest snapshot's last shard."""

    at: float
    kind: Kind
    who: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Weather:
    """The network between workers and shards; times in seconds, chances from 0 to 1 per call.

    A call takes `latency`, and up to `jitter` more. `lost`: the caller is told that the shard is gone, though the
    call, its answer, or nothing at all may yet arrive. `doubled`: the call arrives twice.
    """

    latency: float = 0.001
    jitter: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Seconds: of one gradient, of a shard's serving a call, of writing a shard's file, of starting a process."""

    compute: float = 0.02
    serve: float = 0.0005
    write: float = 0.01
    start: float = 0.03
