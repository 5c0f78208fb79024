"""What a host lends the supervisor: it starts and ends processes, carries calls and knows the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Lost:
    """In place of a shard's answer: its process is gone."""

    reason: str


@dataclass(frozen=True)
class Ended:
    """A worker's loop ended: with its work done (no `reason`), replaced, or because its process is gone."""

    rank: int
    incarnation: int
    reason: str = ""


class Hands(Protocol):
    """What a host does for the supervisor. Every wait has the host's deadline and ends in a PsdeviseError."""

    def now(self) -> float:
        """Seconds; only grows."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """A method of the coordinator → its answer."""

    def call_shards(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Calls a method of each shard named, all before any is waited for → shard → its answer, or Lost.

        Raises:
            PsdeviseError: what the shard raised.
        """

    def start_shards(self, incarnations: Mapping[int, int], manifest: Mapping[str, Any]) -> None:
        """Starts shard → incarnation, restored from a snapshot, and waits until they are up; what dies meanwhile is
        Lost to the next call. Workers do not find them before `announce`.

        Raises:
            SnapshotError: a file of the snapshot is not whole.
        """

    def announce(self) -> None:
        """Tells the workers where the shards are now."""

    def start_workers(self, incarnations: Mapping[int, int]) -> None:
        """Starts worker → incarnation; they do not run yet, and where there is no room may have to wait for it."""

    def await_workers(self) -> None:
        """Waits until those that a phase begins with are placed."""

    def up(self) -> list[int]:
        """Workers that were started and do not run yet, and whose processes are there now. Never waits."""

    def run_worker(self, rank: int) -> None: ...

    def host(self, rank: int) -> str:
        """Where a worker is, for people to read."""

    def end_worker(self, rank: int) -> None:
        """Ends its process, whatever it is doing."""

    def ended(self, seconds: float) -> list[Ended]:
        """The workers that have ended since; waits at most `seconds` for the first.

        Raises:
            PsdeviseError: what a worker's loop raised.
        """


@dataclass(frozen=True)
class Terms:
    """What the configuration says about a phase's life; times in seconds, `snapshot_share` of the phase."""

    phase: str
    workers: int
    bound: int | None
    snapshot_seconds: float
    snapshot_share: float
    max_restarts: int
    max_bad_gradients: int
    start_seconds: float = 120.0
