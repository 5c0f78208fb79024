"""A task whose gradients count: one coordinate per row of the data, that a batch's gradient is 1 in.

With Adagrad's accumulators started at 1, the accumulator of a row is 1 + how often its gradient was applied: exact,
read from the shard's own state. Beside it stand weights and a table whose gradients depend on everything before, so
that two runs are equal bit for bit only if all of it happened in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Array, Rows
from psdevise.worker.replica import Replica
from psdevise.worker.task import Figures, TableGradient

WEIGHTS, TABLE_ROWS, BATCH = 5, 7, 2
OPTIMIZER = OptimizerOptions(rate=0.1, initial_accumulator=1.0)


class Counted:
    """
    Args:
        batches: of each slice.
        poisoned: a row; the gradient of a batch that holds it is not a number there.
    """

    def __init__(self, batches: Sequence[int], epochs: int, poisoned: int | None = None) -> None:
        stops = np.cumsum([n * BATCH for n in batches])
        self.slices: Sequence[tuple[int, int]] = [
            (int(stop) - n * BATCH, int(stop)) for stop, n in zip(stops, batches, strict=True)
        ]
        self.epochs, self.poisoned = epochs, poisoned
        self.n = int(stops[-1])
        self.layout = Layout((Dense("rows", (self.n,)), Dense("weights", (WEIGHTS,))), (Table("t", TABLE_ROWS, 2),))

    def initial(self) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        shapes = {"rows": (self.n,), "weights": (WEIGHTS,), "t": (TABLE_ROWS, 2)}
        return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    def bind(self, replica: Replica) -> None:
        """No module: `gradient` works on the replica itself."""

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[Rows]:
        order = start + rng.permutation(stop - start)
        yield from np.split(order, range(BATCH, len(order), BATCH))

    def rows(self, batch: Rows) -> dict[str, Rows]:
        return {"t": np.unique(batch % TABLE_ROWS)}

    def gradient(
        self, replica: Replica, batch: Rows, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        rows = self.rows(batch)["t"]
        known = replica.tables["t"][rows]
        g = np.zeros(self.layout.size, np.float32)
        g[batch] = 1.0
        weights = replica.arena.numpy()[self.n :]
        g[self.n :] = 0.1 * weights + rng.standard_normal(WEIGHTS).astype(np.float32) + 0.01 * known.sum()
        if self.poisoned in batch:
            g[self.poisoned] = np.nan
        replica.gradient.copy_(torch.from_numpy(g))
        return {"t": (rows, known + weights[:2])}, {"examples": float(len(batch)), "loss": 1.0}

    def schedule(self, progress: float) -> float:
        return 1.0 - 0.5 * progress
