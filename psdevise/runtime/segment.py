"""Memory that several processes of one machine share.

Segments have no name: they are `memfd`s, passed on as file descriptors, so the kernel takes them back when the last
process that has one is gone, however it went. Nothing is left behind in /dev/shm.
"""

from __future__ import annotations

import mmap
import os
import threading

import numpy as np
import psutil

from psdevise.errors import ResourceError
from psdevise.server.memory import Memory
from psdevise.server.protocol import Array, Version

PAGE = 4096
available = hasattr(os, "memfd_create")  # Linux


class Segment:
    """`nbytes` of shared memory behind the file descriptor `fd`, which this object closes."""

    def __init__(self, fd: int, nbytes: int, writable: bool) -> None:
        self.fd, self.nbytes = fd, nbytes
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        # Populated: the pages are mapped now, not one fault at a time in the first steps.
        self.map = mmap.mmap(fd, nbytes, mmap.MAP_SHARED | mmap.MAP_POPULATE, protection)

    @classmethod
    def create(cls, nbytes: int, name: str) -> Segment:
        """
        Raises:
            ResourceError: the machine has not as much memory.
        """
        free = psutil.virtual_memory().available
        if nbytes > free:  # the kernel would not refuse, but kill somebody
            raise ResourceError(
                f"{nbytes / 1e6:,.0f} MB of shared memory are wanted, this machine has {free / 1e6:,.0f} MB free",
                mend="take fewer workers on this machine, more machines for the shards, or a smaller model",
            )
        fd = os.memfd_create(f"psdevise-{name}")
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, nbytes)
        return cls(fd, nbytes, writable=True)

    def floats(self, offset: int, n: int) -> Array:
        """A view of `n` float32 from byte `offset` on."""
        return np.frombuffer(self.map, np.float32, n, offset)

    def read_only(self) -> int:
        """A new descriptor through which nobody can write."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.fd)  # the mapping itself goes with its last view


def _pages(n: int) -> int:
    return -(-4 * n // PAGE) * PAGE


class SharedMemory(Memory):
    """A shard's arena and accumulators as workers of its machine see them:

        int64 sequence, incarnation, counter (one page) · arena float32 [n] · accumulators float32 [n]

    The sequence is odd while the arrays change (a seqlock: the one writer never waits for a reader).
    """

    def __init__(self, n: int) -> None:
        self.segment = Segment.create(PAGE + 2 * max(PAGE, _pages(n)), "shard")
        self._header = np.frombuffer(self.segment.map, np.int64, 3)
        self._offset = PAGE

    def zeros(self, n: int) -> Array:
        found = self.segment.floats(self._offset, n)
        self._offset += _pages(n)
        return found

    def begin(self) -> None:
        self._header[0] += 1
        _fence()

    def end(self, version: Version) -> None:
        self._header[1], self._header[2] = version
        _fence()
        self._header[0] += 1


class SharedView:
    """A worker's read-only look at a shard's memory."""

    def __init__(self, segment: Segment, n: int) -> None:
        self._header = np.frombuffer(segment.map, np.int64, 3)
        self._arena = segment.floats(PAGE, n)
        self._sums = segment.floats(PAGE + _pages(n), n)

    def copy(self, newer_than: Version | None, arena: Array, sums: Array | None) -> tuple[Version, bool] | None:
        """Copies one version of the shard into `arena` [n] and `sums` [n].

        Returns:
            The version, and whether it was copied (not if it is `newer_than` itself); None if the shard is changing
            or has changed meanwhile, and what was copied is torn.
        """
        sequence = int(self._header[0])
        if sequence % 2:
            return None
        _fence()
        version = Version(int(self._header[1]), int(self._header[2]))
        moved = version != newer_than
        if moved:
            np.copyto(arena, self._arena)
            if sums is not None:
                np.copyto(sums, self._sums)
        _fence()
        return (version, moved) if int(self._header[0]) == sequence else None


_lock = threading.Lock()


def _fence() -> None:
    """Keeps the processor from moving reads and writes across: a lock taken and given back is a full barrier."""
    _lock.acquire()
    _lock.release()


class Gradients:
    """Memory for gradients on their way, in segments that this machine's shards can read."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self._starts: list[int] = []

    def allocate(self, n: int) -> Array:
        segment = Segment.create(max(PAGE, 4 * n), "gradient")
        found = segment.floats(0, n)
        self.segments.append(segment)
        self._starts.append(_address(found))
        return found

    def find(self, array: Array) -> tuple[int, int] | None:
        """(number of the segment, byte offset) of an array that lies in one; else None."""
        address = _address(array)
        for number, (start, segment) in enumerate(zip(self._starts, self.segments, strict=True)):
            if start <= address < start + segment.nbytes:
                return number, address - start
        return None


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
