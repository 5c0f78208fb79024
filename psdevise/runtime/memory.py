"""The memory of a process: its peak, that it is kept, and how it is copied and mapped."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from psdevise.server.protocol import Array

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
NEVER = 2**31 - 1
TUNABLES = "GLIBC_TUNABLES"
# A copy of parameters is not read again before the next step has passed over as much memory many times: written past
# the caches it takes half as long. And malloc's memory in huge pages has fewer of them to look up.
FOR_TRAINING = "glibc.cpu.x86_non_temporal_threshold=4194304:glibc.malloc.hugetlb=1"


def peak_bytes() -> float:
    """Peak resident memory so far, shared pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def keep_freed() -> None:
    """Lets malloc keep what is freed, for the next step, which needs memory of the same sizes again.

    By default glibc maps large blocks anew every time and gives the heap's end back, and the kernel zeroes each page
    again when it is touched: thousands of page faults a step, a tenth of a convolutional net's time. Where there is no
    glibc nothing is done.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def touched(shape: tuple[int, ...]) -> Array:
    """float32 memory whose pages have been found already, which takes longer than to copy something there."""
    return np.full(shape, 0, np.float32)


@contextmanager
def tuned_children() -> Iterator[None]:
    """Processes that are started in here have glibc's memory set for training: it reads that when it starts, and never
    again. What the user has set counts. Where there is no glibc nobody reads it."""
    before = os.environ.get(TUNABLES)
    os.environ[TUNABLES] = f"{FOR_TRAINING}:{before}" if before else FOR_TRAINING
    try:
        yield
    finally:
        del os.environ[TUNABLES]
        if before is not None:
            os.environ[TUNABLES] = before
