"""The coordinator as a Ray actor: the state machine with a clock. Imports no torch, so it starts at once."""

from __future__ import annotations

import time
from typing import Any

from psdevise.runtime.memory import peak_bytes
from psdevise.server.coordinator import Coordinator
from psdevise.server.ledger import Ledger


class CoordinatorActor:
    """The coordinator with a clock."""

    def __init__(
        self,
        slices: list[tuple[int, int]],
        epochs: int,
        seed: int,
        lease_seconds: float,
        bound: int | None,
        warm_start: int,
        expected: int,
        state: dict[str, Any] | None,
    ) -> None:
        ledger = Ledger(slices, epochs, seed, lease_seconds)
        self._coordinator = Coordinator(ledger, bound, warm_start, expected)
        self._shards: list[str] = []
        if state is not None:
            self._coordinator.restore(state)

    def ask(self, question: str, worker: int, incarnation: int, *arguments: Any) -> Any:
        timed = (time.monotonic(),) if question in ("lease", "begin", "report", "join") else ()
        return getattr(self._coordinator, question)(worker, incarnation, *arguments, *timed)

    def status(self) -> dict[str, Any]:
        return self._coordinator.status(time.monotonic()) | {
            "peak_bytes": peak_bytes(),
            "at_boundary": self._coordinator.rounds is None or self._coordinator.rounds.at_boundary,
        }

    def announce(self, shards: list[str]) -> None:
        """The names under which the shards' actors are found now; a restarted shard has a new one."""
        self._shards = shards

    def shards(self) -> list[str]:
        return self._shards

    def expire(self) -> list[tuple[int, int]]:
        return self._coordinator.expire(time.monotonic())

    def stop(self) -> None:
        self._coordinator.stop()

    def pause(self, paused: bool) -> None:
        """At staleness 0: keeps the next step from opening, so that a snapshot finds all at a boundary."""
        if self._coordinator.rounds is not None:
            self._coordinator.rounds.paused = paused

    def state(self) -> dict[str, Any]:
        return self._coordinator.state()
