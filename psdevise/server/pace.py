"""The bound on staleness: who may begin which step (stale-synchronous parallel, Ho et al. 2013).

A step is one push. With bound k no worker begins step t before every live worker's push of step t−k−1 is
in. Live = has joined the pace (it holds a lease) and not left. One that joins takes the highest step under
way as its own. At bound 0 the steps are common: `Coordinator` draws their members from here.
"""

from __future__ import annotations


class Pace:
    """
    Args:
        bound: k ≥ 0, or None for no bound.
    """

    def __init__(self, bound: int | None) -> None:
        self.bound = bound
        self._pushed: dict[int, int] = {}  # worker → steps whose push is in

    def join(self, worker: int) -> int:
        """The worker's first step: the highest one under way."""
        if worker not in self._pushed:
            self._pushed[worker] = max(self._pushed.values(), default=0)
        return self._pushed[worker]

    def leave(self, worker: int) -> None:
        self._pushed.pop(worker, None)

    def pushed(self, worker: int, step: int) -> None:
        """The worker's push of `step` is in (a refused one counts as in)."""
        if worker in self._pushed:
            self._pushed[worker] = max(self._pushed[worker], step + 1)

    def may_begin(self, step: int) -> bool:
        if self.bound is None or not self._pushed:
            return True
        return min(self._pushed.values()) >= step - self.bound

    @property
    def live(self) -> tuple[int, ...]:
        return tuple(sorted(self._pushed))
