"""Leases, staleness, and who is who: the one synchronous state machine that all workers of a phase ask.

A host wraps it (a Ray actor, or a plain object in one process) and supplies the time. A question that
cannot be answered yet returns `WAIT`, and the worker asks again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from psdevise.server.ledger import Ledger, Slice
from psdevise.server.pace import Pace
from psdevise.server.protocol import Turn
from psdevise.server.rounds import Rounds

WAIT: Final = "wait"
Wait = Literal["wait"]
TIMED: Final = frozenset({"join", "expire", "lease", "renew", "begin", "report", "status"})


class Begun(NamedTuple):
    """Leave to compute `step`. At staleness 0, `turn` names its members."""

    step: int
    turn: Turn | None


@dataclass
class Standing:
    """What the coordinator knows of one worker."""

    incarnation: int
    steps: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, float] = field(default_factory=dict)
    slice: Slice | None = None
    position: int = 0
    seen: float = 0.0
    heard: bool = False  # not while it starts and builds its model, which may take longer than a lease


class Coordinator:
    """
    Args:
        ledger: the slices of the phase.
        bound: staleness, None for unbounded.
        warm_start: steps that the worker of the lowest rank makes alone before the others get a slice.
        expected: at staleness 0, how many workers the first step waits for.
        start_seconds: how long a worker may take from joining to its first question.
    """

    def __init__(
        self, ledger: Ledger, bound: int | None, warm_start: int = 0, expected: int = 1, start_seconds: float = 120.0
    ) -> None:
        self.ledger = ledger
        self._pace = Pace(bound)
        self.rounds = Rounds(expected, ledger.lease) if bound == 0 else None
        self._warm_start, self._expected, self._start_seconds = warm_start, expected, start_seconds
        self._warm_steps = 0
        self.workers: dict[int, Standing] = {}
        self.total: Counter[str] = Counter()  # of all workers, also those that are gone
        self._acknowledged: dict[tuple[int, int], int] = {}  # (shard, its life) → examples
        self._met: dict[int, dict[int, int]] = {}  # shard → worker's incarnation → the shard's life that it knows
        self.stopping = False

    def answer(self, question: str, arguments: tuple[Any, ...], now: float) -> Any:
        """Any of the methods below by its name, for a host; those that need the time get `now`."""
        timed = (now,) if question in TIMED else ()
        return getattr(self, question)(*arguments, *timed)

    # ------------------------------------------------------------------ membership

    def join(self, worker: int, incarnation: int, now: float) -> None:
        """Admits a worker under a new incarnation; an older one of the same rank is gone."""
        if worker in self.workers:
            self.leave(worker, self.workers[worker].incarnation)
        self.workers[worker] = Standing(incarnation, seen=now)
        if self.rounds is not None:
            self.rounds.join(worker)

    def leave(self, worker: int, incarnation: int) -> Turn | None:
        """The worker is gone and its slices return to the pool. At staleness 0: the turn under way
        without it, which the shards must be told of, if it was a member."""
        if not self._current(worker, incarnation):
            return None
        del self.workers[worker]
        self.ledger.release(worker)
        self._pace.leave(worker)
        return None if self.rounds is None else self.rounds.leave(worker)

    def expire(self, now: float) -> list[tuple[int, int]]:
        """(worker, incarnation) of those whose lease ran out, or that hold none and have been silent for as long:
        others may be waiting for them. The host replaces them."""
        silent = set()
        for worker, standing in self.workers.items():
            patience = self.ledger.lease_seconds if standing.heard else self._start_seconds
            if standing.seen < now - patience:
                silent.add(worker)
        return [(w, self.workers[w].incarnation) for w in sorted(self.ledger.expire(now) | silent) if w in self.workers]

    def stop(self) -> None:
        """No further slices: workers end theirs, flush, and leave. At staleness 0 no further step: they stay at
        the boundary, where a snapshot finds each with its slice and its position."""
        if self.rounds is None:
            self.stopping = True
        self.pause(True)

    def unfinished(self) -> Turn | None:
        """At staleness 0: what a shard that was restored may still wait for of the turn under way."""
        return None if self.rounds is None else self.rounds.unfinished

    def pause(self, paused: bool) -> None:
        """At staleness 0: keeps the next step from opening, so that a snapshot finds all at a boundary."""
        if self.rounds is not None:
            self.rounds.paused = paused

    # ------------------------------------------------------------------ leases

    def lease(self, worker: int, incarnation: int, now: float) -> Slice | Wait | None:
        """A slice; WAIT while none is free but one may be given back; None when the worker is to end."""
        if not self._current(worker, incarnation):
            return None
        if self.stopping or self.ledger.done:
            self._pace.leave(worker)
            if self.rounds is not None:
                self.rounds.leave(worker)
            return None
        standing = self.workers[worker]
        standing.seen, standing.heard = now, True
        if self.rounds is not None:
            taken = self.rounds.hungry(worker, now)
        elif self._warm_steps < self._warm_start and worker != min(self.workers):
            return WAIT
        else:
            taken = self.ledger.lease(worker, now)
        if taken is None:
            self._pace.leave(worker)
            return WAIT
        self._pace.join(worker)
        standing.slice, standing.position = taken, taken.position
        return taken

    def renew(self, worker: int, incarnation: int, now: float) -> bool:
        """Keeps the worker's lease alive. False tells it that it has been replaced."""
        if not self._current(worker, incarnation):
            return False
        self.workers[worker].seen = now
        self.ledger.renew(worker, now)
        return True

    def finish(self, worker: int, incarnation: int, taken: Slice, refused: int = 0) -> bool:
        """All pushes of the slice were answered for good; `refused` of its examples by refusal."""
        if not self._current(worker, incarnation):
            return False
        self.workers[worker].slice = None
        if self.rounds is not None:
            self.rounds.finished(worker)
        return self.ledger.finish(worker, taken, refused)

    # ------------------------------------------------------------------ steps

    def begin(self, worker: int, incarnation: int, step: int, now: float) -> Begun | Wait | None:
        """Leave to compute `step` (−1: the worker's first). None if it has been replaced."""
        if not self._current(worker, incarnation):
            return None
        if self.rounds is not None:
            self._advance(worker)
            turn = self.rounds.ready(worker, now)
            return WAIT if turn is None else Begun(turn.step, turn)
        # One that held no slice for a while joins again: at the highest step under way, and never behind its own.
        step = max(step, self._pace.join(worker))
        self._pace.pushed(worker, step - 1)
        return Begun(step, None) if self._pace.may_begin(step) else WAIT

    def pushed(self, worker: int, incarnation: int, step: int, position: int) -> None:
        """The push of `step` is in at all shards; `position` batches of the worker's slice are done. At staleness 0
        they count from when the worker is at the boundary: until then, its death takes back what is held."""
        if self._current(worker, incarnation):
            self._pace.pushed(worker, step)
            self.workers[worker].position = position
            if self.rounds is None:
                self._advance(worker)

    def acknowledged(self, worker: int, incarnation: int, shard: int, life: int, examples: int, now_at: int) -> None:
        """A worker has met another life of a shard, `now_at`; the one before had applied so many examples when it last
        answered it."""
        self._acknowledged[shard, life] = max(examples, self._acknowledged.get((shard, life), 0))
        self._met.setdefault(shard, {})[incarnation] = now_at

    def taken_back(self, shard: int, life: int) -> tuple[int, dict[int, int]]:
        """What a life of a shard had applied and acknowledged, as far as is known; and worker's incarnation → the life
        that it has told of last."""
        return self._acknowledged.get((shard, life), 0), dict(self._met.get(shard, {}))

    def report(
        self, worker: int, incarnation: int, figures: dict[str, float], gauges: dict[str, float], now: float
    ) -> bool:
        """Adds a worker's counters since its last report, replaces its gauges and renews its lease."""
        if not self.renew(worker, incarnation, now):
            return False
        standing = self.workers[worker]
        for name, value in figures.items():
            standing.figures[name] += value  # type: ignore[assignment]
            self.total[name] += value  # type: ignore[assignment]
        standing.steps += int(figures.get("steps", 0))
        self._warm_steps += int(figures.get("steps", 0))
        standing.gauges |= gauges
        return True

    def status(self, now: float) -> dict[str, Any]:
        """Plain data for the driver: progress, the audit, and every worker's figures."""
        return {
            "progress": self.ledger.progress,
            "epoch": self.ledger.epoch,
            "done": self.ledger.done,
            "audit": dict(vars(self.ledger.audit)),
            "leases": len(self.ledger.leases),
            "at_boundary": self.rounds is None or self.rounds.at_boundary,
            "total": dict(self.total),
            "workers": {
                rank: {
                    "incarnation": s.incarnation,
                    "steps": s.steps,
                    "figures": dict(s.figures),
                    "gauges": dict(s.gauges),
                    "silent": now - s.seen,
                }
                for rank, s in self.workers.items()
            },
        }

    # ------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        return {
            "ledger": self.ledger.state(),
            "step": 0 if self.rounds is None else self.rounds.step,
            "warm_steps": self._warm_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.ledger.restore(state["ledger"], workers=0 if self.rounds is None else self._expected)
        self._warm_steps = state["warm_steps"]
        if self.rounds is not None:
            self.rounds.step = state["step"]

    def _advance(self, worker: int) -> None:
        standing = self.workers[worker]
        if standing.slice is not None and standing.position > standing.slice.position:
            self.ledger.advance(worker, standing.slice, standing.position)

    def _current(self, worker: int, incarnation: int) -> bool:
        standing = self.workers.get(worker)
        return standing is not None and standing.incarnation == incarnation
