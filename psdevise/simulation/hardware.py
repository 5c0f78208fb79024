"""What processes share: cores, network cards, and the one call that a process serves at a time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable

from psdevise.simulation.clock import Clock

Then = Callable[[], None]
_ROUNDING = 1e-12


class Processor:
    """The cores of one host, shared evenly by all that runs on them (processor sharing): each of n threads gets
    min(1, cores / n) of a core."""

    def __init__(self, clock: Clock, cores: float) -> None:
        self._clock, self._cores = clock, cores
        self._order = itertools.count()
        self._running: list[tuple[float, int, Then]] = []  # by the share of a core that they will have had at their end
        self._had = 0.0  # what a thread that had been there from the start would have had
        self._at = clock.now
        self._busy = 0.0
        self._plan = 0

    @property
    def busy(self) -> float:
        """Core-seconds used so far, as a share of all cores."""
        self._advance()
        return self._busy / self._cores

    def run(self, seconds: float, then: Then) -> None:
        """One thread's work of so many core-seconds."""
        if seconds <= 0:
            then()
            return
        self._advance()
        heapq.heappush(self._running, (self._had + seconds, next(self._order), then))
        self._expect()

    def _rate(self) -> float:
        return min(1.0, self._cores / len(self._running))

    def _advance(self) -> None:
        seconds, self._at = self._clock.now - self._at, self._clock.now
        if self._running and seconds > 0:
            self._had += seconds * self._rate()
            self._busy += seconds * self._rate() * len(self._running)

    def _expect(self) -> None:
        """Looks in at the end of whoever is the next to end, unless that changes before."""
        self._plan += 1
        if self._running:
            plan = self._plan
            self._clock.after(max(0.0, self._running[0][0] - self._had) / self._rate(), lambda: self._look(plan))

    def _look(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._advance()
        ended = [heapq.heappop(self._running)]
        while self._running and self._running[0][0] <= self._had + _ROUNDING:
            ended.append(heapq.heappop(self._running))
        self._expect()
        for _, _, then in ended:
            then()


class Lane:
    """One direction of a network card; messages one after the other. `busy`: seconds so far."""

    def __init__(self, bytes_per_second: float) -> None:
        self.rate = bytes_per_second
        self.free = self.busy = 0.0


def transfer(clock: Clock, source: Lane, target: Lane, nbytes: float, latency: float, then: Then) -> None:
    """From card to card: the receiving one begins with the first byte and ends after the last; what is in between
    (a switch) keeps what cannot be taken yet."""
    begin = max(clock.now, source.free)
    sent = source.free = begin + nbytes / source.rate
    source.busy += nbytes / source.rate

    def arrive() -> None:
        target.free = max(max(clock.now, target.free) + nbytes / target.rate, sent + latency)
        target.busy += nbytes / target.rate
        clock.after(target.free - clock.now, then)

    clock.after(begin + latency - clock.now, arrive)


class Desk:
    """Who is served comes one after the other, in the order of their coming: a lock, or an actor's calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._waiting = clock, deque[Callable[[Then], None]]()
        self._taken = False
        self._since = self._busy = 0.0

    @property
    def busy(self) -> float:
        """Seconds so far in which somebody was served."""
        return self._busy + (self._clock.now - self._since if self._taken else 0.0)

    def enter(self, serve: Callable[[Then], None]) -> None:
        """`serve` begins when it is its turn, and calls what it is given at its end."""
        self._waiting.append(serve)
        if not self._taken:
            self._next()

    def _next(self) -> None:
        self._taken = bool(self._waiting)
        if self._waiting:
            self._since = self._clock.now
            self._waiting.popleft()(self._leave)

    def _leave(self) -> None:
        self._busy += self._clock.now - self._since
        self._next()
