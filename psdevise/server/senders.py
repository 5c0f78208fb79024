"""What a shard remembers of those who push to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from psdevise.server.protocol import Identity


@dataclass
class Answered:
    """The pushes of one worker's incarnation that were answered for good: all below `floor`, and these."""

    incarnation: int
    floor: int = 0
    above: set[int] = field(default_factory=set)

    def __contains__(self, sequence: int) -> bool:
        return sequence < self.floor or sequence in self.above

    def add(self, identity: Identity) -> None:
        self.above.add(identity.sequence)
        if identity.floor > self.floor:
            self.floor = identity.floor
            self.above = {s for s in self.above if s >= self.floor}


@dataclass
class Poisoned:
    """The gradients of one worker's incarnation that were refused: how many, and why the last one was."""

    incarnation: int
    count: int
    problem: str
