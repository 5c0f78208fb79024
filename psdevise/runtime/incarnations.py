"""Incarnations of shards and workers: only grow, and are never used twice, also across resumed runs."""

from __future__ import annotations

import threading

from psdevise import store


class Incarnations:
    """Hands out numbers; the last one is on disk before it is used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()

    def take(self, n: int) -> list[int]:
        with self._lock:
            last = store.read_json(self._path)["last"] if store.exists(self._path) else 0
            store.write_json(self._path, {"last": last + n})
        return list(range(last + 1, last + n + 1))
