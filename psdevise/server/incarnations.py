"""Incarnations of shards and workers: only grow, and are never used twice, also across resumed runs."""

from __future__ import annotations

from psdevise import store


class Incarnations:
    """Hands out numbers; the last one is on disk before it is used. One phase at a time uses a run's file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def take(self, n: int) -> list[int]:
        last = store.read_json(self._path)["last"] if store.exists(self._path) else 0
        store.write_json(self._path, {"last": last + n})
        return list(range(last + 1, last + n + 1))
