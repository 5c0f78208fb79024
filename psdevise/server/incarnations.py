"""Incarnations of shards and workers: only grow, and are never used twice, also across resumed runs."""

from __future__ import annotations

from psdevise import store


class Incarnations:
    """Hands out numbers; the last one is on disk before it is used. One phase at a time uses a run's file.

    Args:
        last: what the manifest knows of, should the file be gone.
    """

    def __init__(self, path: str, last: int = 0) -> None:
        self._path, self.last = path, last

    def take(self, n: int) -> list[int]:
        """
        Raises:
            StoreError: the file was changed by somebody else.
        """
        if store.exists(self._path):
            self.last = max(self.last, int(store.read_sealed(self._path)["last"]))
        first, self.last = self.last + 1, self.last + n
        store.write_sealed(self._path, {"last": self.last})
        return list(range(first, self.last + 1))
