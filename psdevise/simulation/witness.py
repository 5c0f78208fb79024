"""What can be seen of a simulated run. This one looks away; tests have one that checks what was promised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psdevise.server.coordinator import Coordinator
from psdevise.server.protocol import Turn, Version
from psdevise.server.shard import ShardState
from psdevise.worker.effects import Call

if TYPE_CHECKING:
    from psdevise.simulation.network import ShardLife
    from psdevise.simulation.worker import SimulatedWorker


class Witness:
    def served(self, life: ShardLife, call: Call, reply: Any, before: Version) -> None:
        """A shard has served a worker's call; `before` is the version that it was at."""

    def amended(self, life: ShardLife, turn: Turn, before: Version) -> None: ...

    def copied(self, life: ShardLife, number: int, state: ShardState) -> None:
        """A shard's state for snapshot `number`."""

    def committed(self, number: int) -> None:
        """Snapshot `number` is on disk."""

    def restored(self, life: ShardLife, number: int, shards: int) -> None:
        """A shard was started from snapshot `number`; there are `shards` of them."""

    def resumed(self, number: int, coordinator: Coordinator) -> None:
        """A run begins, from snapshot `number`."""

    def computed(self, worker: SimulatedWorker) -> None:
        """The gradient of one batch."""

    def asked(self, worker: SimulatedWorker, question: str, arguments: tuple[Any, ...], answer: Any) -> None:
        """The coordinator has answered a worker."""

    def sent(self, worker: SimulatedWorker, calls: tuple[Call, ...]) -> None: ...
