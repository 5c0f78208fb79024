"""An fsspec file system in memory, `simulated://`, whose writes can fail and whose files can be damaged.

One for the whole process, because fsspec finds file systems by their protocol: `reset` empties it.
"""

from __future__ import annotations

import errno
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

PROTOCOL = "simulated"


class SimulatedDisk(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Like an object store, a file is there when it was closed whole, and not before."""

    protocol = PROTOCOL
    store: dict[str, Any] = {}  # noqa: RUF012, as fsspec's own: shared by all instances
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    writes = 0
    full_at: frozenset[int] = frozenset()

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.writes, cls.full_at = 0, frozenset()

    @classmethod
    def fail_writes(cls, *ahead: int) -> None:
        """The disk is full for the `ahead`-th writes from now on (1: the next)."""
        cls.full_at |= {cls.writes + n for n in ahead}

    @classmethod
    def cut(cls, path: str, keep: float) -> None:
        """Leaves the first `keep` of a file (0 to 1), as a power failure may."""
        file = cls.store[cls._strip_protocol(path)]
        file.truncate(int(file.size * keep))

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(MemoryFileSystem._strip_protocol(str(path).removeprefix(f"{PROTOCOL}://")))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            type(self).writes += 1
            if self.writes in self.full_at:
                raise OSError(errno.ENOSPC, "no space left on the simulated disk")
        return super()._open(path, mode, **options)


fsspec.register_implementation(PROTOCOL, SimulatedDisk, clobber=True)
