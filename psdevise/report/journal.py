"""What events.jsonl tells: sessions of a run, attempts at each phase, curves, lags, restarts, the bill.

A run may have been stopped and continued any number of times: each start is a session, and each start of a
phase in it an attempt. What counts for a phase is its last chain of attempts: the stopped ones and the one
that ended them, without those whose result was thrown away (`--from`) or only reused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from psdevise import store
from psdevise.errors import DataError
from psdevise.events import (
    Event,
    Notice,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Restarted,
    RunFinished,
    RunStarted,
    SnapshotWritten,
    Validated,
    from_plain,
)

FINISHED, REUSED, STOPPED = "finished", "reused", "stopped"


class Point(NamedTuple):
    """Seconds since the attempt began; units per second; loss or None. `part` grows when a phase trains anew
    (projection, then fine-tuning)."""

    seconds: float
    rate: float
    loss: float | None
    part: int


@dataclass
class Attempt:
    """`begin` and `end` in seconds on the run's own clock, which stands still between sessions."""

    unit: str
    begin: float
    end: float
    outcome: str = STOPPED
    points: list[Point] = field(default_factory=list)
    count: float = 0.0
    lags: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)  # (shard, incarnation) → lags
    restarts: list[Restarted] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    validated: list[tuple[str, float]] = field(default_factory=list)
    snapshots: int = 0
    bill: dict[str, float] = field(default_factory=dict)


@dataclass
class Phase:
    name: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def chain(self) -> list[Attempt]:
        """The attempts that made the artifact that stands."""
        found: list[Attempt] = []
        for attempt in self.attempts:
            if attempt.outcome == REUSED:
                continue
            if found and found[-1].outcome == FINISHED:
                found = []
            found.append(attempt)
        return found

    @property
    def outcome(self) -> str:
        chain = self.chain
        return chain[-1].outcome if chain else REUSED

    @property
    def unit(self) -> str:
        return self.attempts[-1].unit

    @property
    def seconds(self) -> float:
        return sum(a.end - a.begin for a in self.chain)

    @property
    def count(self) -> float:
        return max((a.count for a in self.chain), default=0.0)

    @property
    def bill(self) -> dict[str, float]:
        return self.chain[-1].bill if self.chain else {}

    @property
    def lags(self) -> dict[int, int]:
        """Lag → pushes, over all shards and their incarnations."""
        total: Counter[int] = Counter()
        for attempt in self.chain:
            for found in attempt.lags.values():
                total.update(found)
        return dict(sorted(total.items()))

    def points(self) -> Iterator[Point]:
        """Of the whole chain, one after the other; an attempt begins a part of its own."""
        before, parts = 0.0, 0
        for attempt in self.chain:
            for p in attempt.points:
                yield p._replace(seconds=before + p.seconds, part=parts + p.part)
            before += attempt.end - attempt.begin
            parts += attempt.points[-1].part + 1 if attempt.points else 0


@dataclass
class Journal:
    """`started`: Unix time of the first event. `unreadable`: lines that were cut off or are of a newer
    psdevise."""

    started: float = 0.0
    sessions: int = 0
    seconds: float = 0.0
    ended: bool = False
    unreadable: int = 0
    phases: dict[str, Phase] = field(default_factory=dict)


def read(path: str) -> Journal:
    """The journal of a run.

    Raises:
        StoreError: there is no such file.
        DataError: it holds no event.
    """
    journal = Journal()
    open_attempts: dict[str, Attempt] = {}
    begin = previous = offset = 0.0
    for line in store.read_text(path).splitlines():
        found = _event(line)
        if found is None:
            journal.unreadable += 1
            continue
        time, event = found
        if journal.sessions == 0:
            journal.started = begin = previous = time
        if isinstance(event, RunStarted) or journal.sessions == 0:
            offset += previous - begin
            begin, previous = time, time
            journal.sessions += 1
            journal.ended = False
            open_attempts = {}
        previous = time
        journal.seconds = now = offset + time - begin
        _take(journal, open_attempts, event, now)
    if journal.sessions == 0:
        raise DataError("no event in it", where=path)
    return journal


def _take(journal: Journal, open_attempts: dict[str, Attempt], event: Event, now: float) -> None:
    if isinstance(event, RunStarted):
        for name in event.phases:
            journal.phases.setdefault(name, Phase(name))
        return
    if isinstance(event, RunFinished):
        journal.ended = True
        return
    if isinstance(event, PhaseStarted):
        attempt = open_attempts[event.phase] = Attempt(event.unit, now, now)
        journal.phases.setdefault(event.phase, Phase(event.phase)).attempts.append(attempt)
        return
    if event.phase not in open_attempts:  # a figure of an ended phase that a later one has measured
        earlier = journal.phases.get(event.phase)
        if isinstance(event, Validated) and earlier is not None and earlier.attempts:
            earlier.attempts[-1].validated.append((event.name, event.value))
        return
    attempt = open_attempts[event.phase]
    attempt.end = now
    match event:
        case Progress():
            _progress(attempt, event, now)
        case Restarted():
            attempt.restarts.append(event)
        case Notice(_, text):
            attempt.notices.append(text)
        case Validated(_, name, value):
            attempt.validated.append((name, value))
        case SnapshotWritten():
            attempt.snapshots += 1
        case PhaseFinished(_, _, reused, bill):
            attempt.outcome = REUSED if reused else FINISHED
            attempt.bill = bill
            del open_attempts[event.phase]


def _progress(attempt: Attempt, event: Progress, now: float) -> None:
    again = event.count < attempt.count  # counted from zero: the phase trains its next part
    part = (attempt.points[-1].part if attempt.points else 0) + again
    attempt.count = event.count
    loss = event.loss if event.loss is not None and math.isfinite(event.loss) else None
    attempt.points.append(Point(now - attempt.begin, event.rate, loss, part))
    for rank, shard in enumerate(event.shards):
        if "lags" in shard and "version" in shard:
            attempt.lags[rank, int(shard["version"][0])] = {int(k): int(v) for k, v in shard["lags"].items()}


def _event(line: str) -> tuple[float, Event] | None:
    try:
        data = json.loads(line)
        event = from_plain(data)
        return None if event is None else (float(data["time"]), event)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
