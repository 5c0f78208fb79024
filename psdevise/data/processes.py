"""Processes that prepare data, and leave Ctrl-C to the one that started them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def pool(
    processes: int, start: Callable[..., None] | None = None, arguments: tuple[object, ...] = ()
) -> ProcessPoolExecutor:
    """Spawned processes, each of which runs `start(*arguments)` first."""
    return ProcessPoolExecutor(processes, get_context("spawn"), initializer=_start, initargs=(start, arguments))


def _start(start: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    # A terminal's Ctrl-C reaches the whole group; here it would look like a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if start is not None:
        start(*arguments)
