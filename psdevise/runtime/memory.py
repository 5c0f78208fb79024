"""The memory of this process: its peak, and that it is kept."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
NEVER = 2**31 - 1


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
