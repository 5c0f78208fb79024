"""Where a worker and a shard of its machine put table rows for each other: memory of the worker's that both may write.

Through their socket rows would be copied twice, and land in pages that have to be found anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from psdevise.runtime.segment import Segment
from psdevise.server.protocol import Array

LARGE = 1 << 16  # bytes; below, looking after a segment costs more than a copy
ALIGNED = 64
ROOM = 1.25  # memory that is made, to what is needed now


class Shelf:
    """Segments of which each holds the rows of one call, and is used again when that is over.

    Args:
        announce: called with the number of each new segment and itself, before any call names it.
    """

    def __init__(self, announce: Callable[[int, Segment], None]) -> None:
        self._announce = announce
        self._segments: dict[int, Segment] = {}
        self._free: list[int] = []
        self._made = 0

    def take(self, shapes: Iterable[tuple[int, int]]) -> int:
        """The number of a segment with room for these arrays, the caller's until `give_back`.

        Raises:
            ResourceError: the machine has not as much memory.
        """
        nbytes = nbytes_of(shapes)
        for number in self._free:
            if self._segments[number].nbytes >= nbytes:
                self._free.remove(number)
                return number
        if self._free:  # all are too small
            number = self._free.pop()
        else:
            number, self._made = self._made, self._made + 1
        self._segments[number] = Segment.create(int(ROOM * nbytes), "rows")
        self._announce(number, self._segments[number])
        return number

    def arrays(self, number: int, shapes: Iterable[tuple[int, int]]) -> list[Array]:
        return arrays(self._segments[number], shapes)

    def give_back(self, number: int) -> None:
        self._free.append(number)


def arrays(segment: Segment, shapes: Iterable[tuple[int, int]]) -> list[Array]:
    """float32 arrays [rows, dim] in a segment, one behind the other.

    Raises:
        ValueError: they do not fit.
    """
    found, offset = [], 0
    for rows, dim in shapes:
        found.append(segment.floats(offset, rows * dim).reshape(rows, dim))
        offset += _aligned(4 * rows * dim)
    return found


def nbytes_of(shapes: Iterable[tuple[int, int]]) -> int:
    return sum(_aligned(4 * rows * dim) for rows, dim in shapes)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNED) * ALIGNED
