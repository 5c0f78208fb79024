"""What the simulated model's steps and calls take, whatever the small model in them is."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from psdevise.server.protocol import Pulled
from psdevise.simulation.clock import Clock
from psdevise.simulation.hardware import Processor, Then
from psdevise.simulation.options import SimulateOptions


class Sizes:
    """GB of float32 (10^9 bytes) of one call to one shard: every shard has its equal part.

    Attributes:
        push, state: of a push, and of what a snapshot writes.
        packed: bytes on the wire by bytes of float32.
    """

    def __init__(self, options: SimulateOptions) -> None:
        model, shards, self._costs = options.model, options.shards, options.costs
        adagrad = options.downpour.local_step == "adagrad"
        self._dense = model.dense_mb / 1e3 / shards * (2 if adagrad else 1)  # the accumulators come along
        self._rows = model.rows_mb / 1e3 / shards
        self.push = (model.dense_mb + model.rows_mb) / 1e3 / shards
        self.state = (2 * model.dense_mb + model.tables_mb) / 1e3 / shards
        self.packed = model.bytes_per_value / 4

    def start_seconds(self, role: Literal["worker", "shard"]) -> float:
        """Of a process; a shard also reads its state."""
        return self._costs.start + (self._costs.disk_gb * self.state if role == "shard" else 0.0)

    def pull(self, moved: bool) -> float:
        """`moved`: the shard has a newer version than the caller."""
        return self._rows + (self._dense if moved else 0.0)

    def reply(self, reply: Any) -> float:
        return self.pull(reply.dense is not None) if isinstance(reply, Pulled) else 0.0


class Stepping:
    """A worker's step but for its calls: the gradient, the replica's own step where it makes one, and the rest."""

    def __init__(self, options: SimulateOptions, clock: Clock, random: Random) -> None:
        self._costs, self._clock, self._random = options.costs, clock, random
        per_gb = {"none": 0.0, "sgd": options.costs.copy_gb, "adagrad": options.costs.update_gb}
        self._local = per_gb[options.downpour.local_step] * options.model.dense_mb / 1e3

    def __call__(self, cores: Processor, then: Then) -> None:
        costs = self._costs
        seconds = costs.compute * (1 + costs.jitter * (2 * self._random.random() - 1))
        own = lambda: cores.run(costs.step, lambda: cores.run(self._local, then, memory=True))  # noqa: E731
        if costs.compute_cores:
            cores.run(seconds, own)
        else:
            self._clock.after(seconds, own)
