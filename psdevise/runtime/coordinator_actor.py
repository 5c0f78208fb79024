"""The coordinator as a Ray actor: the state machine with a clock. Imports no torch, so it starts at once."""

from __future__ import annotations

import time
from typing import Any

from psdevise.monitor import logs
from psdevise.monitor.logs import logger
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
        start_seconds: float,
        state: dict[str, Any] | None,
        log: tuple[str, str] = ("", ""),
    ) -> None:
        logs.begin(*log)
        ledger = Ledger(slices, epochs, seed, lease_seconds)
        self._coordinator = Coordinator(ledger, bound, warm_start, expected, start_seconds)
        self._shards: list[tuple[str, str]] = []
        if state is not None:
            self._coordinator.restore(state)
        logger.info("coordinator of %d slices, %s", len(slices), "anew" if state is None else "from a snapshot")

    def ask(self, question: str, *arguments: Any) -> Any:
        """A method of the coordinator, by name."""
        return self._coordinator.answer(question, arguments, time.monotonic())

    def announce(self, shards: list[str], hosts: list[str] | None = None) -> None:
        """The names under which the shards' actors are found now, and where; a restarted shard has a new one."""
        self._shards = list(zip(shards, hosts or [""] * len(shards), strict=True))
        logger.info("shards: %s", ", ".join(" on ".join(filter(None, shard)) for shard in self._shards))

    def shards(self) -> list[tuple[str, str]]:
        """(name, host) of each."""
        return self._shards
