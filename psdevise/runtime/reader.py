"""Batches of a slice, read and decoded by a thread ahead of the compute."""

from __future__ import annotations

import queue
import threading
from typing import Any, Final

from psdevise.server.ledger import Slice
from psdevise.worker.task import Task, batches

_END: Final = object()


class ReadAhead:
    """The same, `depth` batches ahead in a thread. One slice at a time: `open` the next when the last one
    has ended. An error of the reading thread is raised where the batch is asked for."""

    def __init__(self, task: Task, key: tuple[int, int], depth: int) -> None:
        self._task, self._key, self._depth = task, key, depth
        self._queue: queue.Queue[Any] = queue.Queue()

    def open(self, taken: Slice) -> None:
        self._queue = queue.Queue(self._depth)
        threading.Thread(target=self._read, args=(taken, self._queue), daemon=True, name="read-ahead").start()

    def next(self) -> tuple[Any, bool] | None:
        found = self._queue.get()
        if isinstance(found, BaseException):
            raise found
        return None if found is _END else found

    @property
    def waiting(self) -> int:
        """Batches that are read and not yet asked for."""
        return self._queue.qsize()

    def _read(self, taken: Slice, out: queue.Queue[Any]) -> None:
        try:
            for found in batches(self._task, self._key, taken):
                out.put(found)
            out.put(_END)
        except BaseException as e:
            out.put(e)
