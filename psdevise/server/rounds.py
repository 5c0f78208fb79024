"""Staleness 0: all workers make the same step together, and get their slices in worker order.

Between steps every worker stands at the boundary: `ready` (it holds a slice) or `hungry` (it wants one).
When all have arrived, slices are dealt to the hungry in worker order and the next turn opens with those
that hold one. Nothing here depends on who arrived first, so a run is the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from psdevise.server.ledger import Slice
from psdevise.server.protocol import Turn


class Rounds:
    """
    Args:
        expected: the first turn waits for the workers below this rank; once each has come it waits for none of them
            that has died since, for whose next life there may be no room.
        lease: draws the next slice for a worker from the ledger, or None.
    """

    def __init__(self, expected: int, lease: Callable[[int, float], Slice | None]) -> None:
        self._awaited, self._lease = set(range(expected)), lease
        self.step = 0  # of the next turn
        self.turn: Turn | None = None
        self.paused = False
        self._slices: dict[int, Slice] = {}
        self._arrived: dict[int, Literal["ready", "hungry"]] = {}
        self._entering: set[int] = set()
        self._workers: set[int] = set()

    def join(self, worker: int) -> None:
        self._workers.add(worker)
        self._awaited.discard(worker)

    def leave(self, worker: int) -> Turn | None:
        """The turn under way without this worker, if it was a member."""
        self._workers.discard(worker)
        self._arrived.pop(worker, None)
        self._entering.discard(worker)
        self._slices.pop(worker, None)
        if self.turn is None or worker not in self.turn.members:
            return None
        self.turn = Turn(self.turn.step, tuple(w for w in self.turn.members if w != worker))
        return self.turn

    def finished(self, worker: int) -> None:
        self._slices.pop(worker, None)

    def hungry(self, worker: int, now: float) -> Slice | None:
        """The slice dealt to the worker at this boundary; None while others are still on their way."""
        if worker not in self._entering:
            self._arrived[worker] = "hungry"
            self._open(now)
        return self._slices.get(worker)

    def ready(self, worker: int, now: float) -> Turn | None:
        """The turn that the worker is to compute now; None while others are still on their way."""
        if worker not in self._entering:
            self._arrived[worker] = "ready"
            self._open(now)
        if worker not in self._entering:
            return None
        self._entering.remove(worker)
        return self.turn

    @property
    def unfinished(self) -> Turn | None:
        """The turn under way with those of its members whose pushes may still be on their way."""
        if self.turn is None:
            return None
        late = tuple(w for w in self.turn.members if w not in self._arrived)
        return Turn(self.turn.step, late) if late else None

    @property
    def at_boundary(self) -> bool:
        """Whether nobody computes: the moment for a snapshot."""
        return self._arrived.keys() == self._workers

    def _open(self, now: float) -> None:
        if self.paused or not self.at_boundary or self._awaited:
            return
        for worker in sorted(self._workers):
            if self._arrived[worker] == "hungry" and (taken := self._lease(worker, now)) is not None:
                self._slices[worker] = taken
        members = tuple(sorted(self._slices))
        if members:
            self.turn = Turn(self.step, members)
            self.step += 1
            self._entering = set(members)
            for worker in members:
                del self._arrived[worker]
