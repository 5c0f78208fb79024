"""What a shard's death took back, in examples: those that it had acknowledged, less those that its snapshot holds.

A dead shard cannot be asked. Each acknowledgement carries the examples that the shard has applied so far, and a worker
that meets a new life of a shard tells the coordinator the last number that it had from the one before. When all
workers have met the new life the highest of these is known, and the death is told with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from psdevise.events import Listener, Restarted


@dataclass(frozen=True)
class Revival:
    """`life`: the incarnation that died; `examples` that the snapshot holds; `workers`: incarnations of those that may
    have had answers from the dead one."""

    index: int
    life: int
    incarnation: int
    reason: str
    examples: int
    workers: frozenset[int]


class Revivals:
    """
    Args:
        taken_back: (shard, life) → the examples that it had acknowledged, as far as workers have told; and worker's
            incarnation → the life of the shard that it has met last.
    """

    def __init__(
        self, phase: str, on_event: Listener, taken_back: Callable[[int, int], tuple[int, dict[int, int]]]
    ) -> None:
        self._phase, self._on_event, self._taken_back = phase, on_event, taken_back
        self._open: list[Revival] = []

    def add(self, revival: Revival) -> None:
        self._open.append(revival)

    def tell(self, alive: Collection[int], last: bool) -> None:
        """Emits Restarted for those whose number is known; `last`: for all.

        Args:
            alive: incarnations of the workers that run now.
        """
        for revival in list(self._open):
            acknowledged, met = self._taken_back(revival.index, revival.life)
            here = revival.workers.intersection(alive)
            if last or all(met.get(w, 0) >= revival.incarnation for w in here):
                self._open.remove(revival)
                gone = max(0, acknowledged - revival.examples)
                who = "shard", revival.index, revival.incarnation
                self._on_event(Restarted(self._phase, *who, revival.reason, gone))
