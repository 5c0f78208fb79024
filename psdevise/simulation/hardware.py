"""What processes share: cores, memory, network cards, and the one call that a process serves at a time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable

from psdevise.simulation.clock import Clock

Then = Callable[[], None]
_ROUNDING = 1e-12


class _Threads:
    """Those of one kind, all of which progress alike. `had`: what one that was there from the start would have had."""

    def __init__(self) -> None:
        self.running: list[tuple[float, int, Then]] = []  # by what they will have had at their end
        self.had = 0.0

    def left(self) -> float:
        """Core-seconds of the one that ends first."""
        return max(0.0, self.running[0][0] - self.had) if self.running else math.inf

    def ended(self) -> list[Then]:
        found = []
        while self.running and self.running[0][0] <= self.had + _ROUNDING:
            found.append(heapq.heappop(self.running)[2])
        return found


class Processor:
    """The cores of one host and its memory, shared evenly by all that runs on them (processor sharing).

    With n threads each has share = min(1, cores / n) of a core. The m of them that go through memory, rather than
    compute in their caches, progress at min(share, streams / m): a core that waits for memory is not free.

    Args:
        streams: how many cores' passes through memory the memory can feed at once.
    """

    def __init__(self, clock: Clock, cores: float, streams: float) -> None:
        self._clock, self._cores, self._streams = clock, cores, streams
        self._order = itertools.count()
        self._computing, self._copying = _Threads(), _Threads()
        self._at = clock.now
        self._busy = 0.0
        self._plan = 0

    @property
    def busy(self) -> float:
        """Core-seconds used so far, as a share of all cores."""
        self._advance()
        return self._busy / self._cores

    def run(self, seconds: float, then: Then, memory: bool = False) -> None:
        """One thread's work of so many core-seconds; `memory`: what it does is to go through memory."""
        if seconds <= 0:
            then()
            return
        self._advance()
        kind = self._copying if memory else self._computing
        heapq.heappush(kind.running, (kind.had + seconds, next(self._order), then))
        self._expect()

    def _rates(self) -> tuple[float, float]:
        """Of those that compute, and of those that go through memory."""
        copying = len(self._copying.running)
        share = min(1.0, self._cores / max(1, len(self._computing.running) + copying))
        return share, min(share, self._streams / max(1, copying))

    def _advance(self) -> None:
        seconds, self._at = self._clock.now - self._at, self._clock.now
        if seconds > 0:
            computing, copying = self._rates()
            self._computing.had += seconds * computing
            self._copying.had += seconds * copying
            threads = len(self._computing.running) + len(self._copying.running)
            self._busy += seconds * min(self._cores, threads)

    def _expect(self) -> None:
        """Looks in at the end of whoever is the next to end, unless that changes before."""
        self._plan += 1
        computing, copying = self._rates()
        wait = min(self._computing.left() / computing, self._copying.left() / copying)
        if wait < math.inf:
            plan = self._plan
            self._clock.after(wait, lambda: self._look(plan))

    def _look(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._advance()
        ended = self._computing.ended() + self._copying.ended()
        self._expect()
        for then in ended:
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
