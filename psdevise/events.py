"""All progress of a run is one stream of these; progress bars, the report's curves, Prometheus, the JSON
lines in the run folder and a user's callback are its readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunStarted:
    run: str
    phases: tuple[str, ...]


@dataclass(frozen=True)
class PhaseStarted:
    """`unit` is what is counted: examples, words, pictures, labels."""

    phase: str
    unit: str = "examples"
    detail: str = ""


@dataclass(frozen=True)
class WorkerFigures:
    """One worker since it joined: counters, and its latest gauges."""

    worker: int
    steps: int
    counters: dict[str, float]
    gauges: dict[str, float]


@dataclass(frozen=True)
class Progress:
    """A phase under way. `done` is a share from 0 to 1; `rate` is units per second over the last few
    seconds; `loss` the mean per unit over the same; `lag` the mean of the workers' last pushes; `bytes`
    what was pulled and pushed so far; `left` seconds, None while unknown; `leases` slices that workers hold;
    `audit` examples that are finished, repeated and refused; `learning_rate` the shards' base rate times the schedule's
    multiplier."""

    phase: str
    done: float
    count: float = 0.0
    rate: float = 0.0
    loss: float | None = None
    lag: float | None = None
    workers: int = 0
    epoch: int = 0
    left: float | None = None
    bytes: float = 0.0
    leases: int = 0
    audit: dict[str, int] = field(default_factory=dict)
    learning_rate: float | None = None
    figures: tuple[WorkerFigures, ...] = ()
    shards: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Validated:
    """A figure on validation data, for curves and for choosing."""

    phase: str
    name: str
    value: float


@dataclass(frozen=True)
class SnapshotWritten:
    phase: str
    number: int
    seconds: float


@dataclass(frozen=True)
class Restarted:
    """A worker or shard died and has a new incarnation. `examples`: of a worker those that are done again, of a shard
    those that it had acknowledged and that its snapshot, named in `reason`, does not hold."""

    phase: str
    role: str
    rank: int
    incarnation: int
    reason: str
    examples: int = 0

    @property
    def fate(self) -> str:
        """What became of `examples`."""
        return "again" if self.role == "worker" else "taken back"


@dataclass(frozen=True)
class Notice:
    """Something that the user should know and the run goes on with."""

    phase: str
    text: str


@dataclass(frozen=True)
class PhaseFinished:
    """`reused`: the artifact was there and nothing ran. `bill`: core_seconds, gpu_seconds, bytes,
    peak_bytes (memory, per process role)."""

    phase: str
    seconds: float
    reused: bool = False
    bill: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFinished:
    run: str
    seconds: float
    results: str = ""
    report: str = ""


Event = (
    RunStarted
    | PhaseStarted
    | Progress
    | Validated
    | SnapshotWritten
    | Restarted
    | Notice
    | PhaseFinished
    | RunFinished
)
Listener = Callable[[Event], None]
_TYPES = {t.__name__: t for t in Event.__args__}


def to_plain(event: Event) -> dict[str, Any]:
    """JSON-ready: the fields, and the type's name under `event`."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def from_plain(data: dict[str, Any]) -> Event | None:
    """The inverse of `to_plain`; None for an event of a version that this one does not know."""
    cls = _TYPES.get(data.get("event", ""))
    if cls is None:
        return None
    names = {f.name for f in dataclasses.fields(cls)}
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in names}
    if cls is Progress:
        fields["figures"] = tuple(WorkerFigures(**f) for f in fields.get("figures", ()))
    event: Event = cls(**fields)
    return event
