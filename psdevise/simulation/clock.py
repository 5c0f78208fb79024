"""Simulated time: a heap of what is to happen, and when."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """`now` in seconds. What is due at the same time happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), action))

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Lets things happen until `until()`, for at most `limit` seconds → whether it came true. What an action
        raises is raised here, at its time."""
        end = self.now + limit
        while not until():
            if not self._due or self._due[0][0] > end:
                self.now = end
                return False
            self.now, _, action = heapq.heappop(self._due)
            action()
        return True
