"""A small net with real gradients, whose training is what a simulated run learns.

    h = max(0, x W₁ + b₁),   z = h W₂ + b₂,   loss = mean over the batch of −log softmax(z)[class]

x is standard normal and its class the largest of x T, with T drawn once. Every batch is drawn anew, so that the loss of
a batch is that of pictures never seen before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from psdevise.server.layout import Dense, Layout
from psdevise.server.protocol import Array, Rows
from psdevise.worker.replica import Replica
from psdevise.worker.task import Figures, TableGradient

INPUTS, CLASSES = 32, 10
SLICE_BATCHES, EPOCHS = 40, 10_000
HELD_OUT = 1024
Batch = tuple[Array, npt.NDArray[np.int64]]


class SmallModel:
    """
    Args:
        slices: of the data, `SLICE_BATCHES` batches each; a row of the data is a batch.
    """

    epochs = EPOCHS

    def __init__(self, hidden: int, batch: int, slices: int, seed: int) -> None:
        self._batch, self._seed = batch, seed
        self.layout = Layout(
            dense=(
                Dense("w1", (INPUTS, hidden)),
                Dense("b1", (hidden,)),
                Dense("w2", (hidden, CLASSES)),
                Dense("b2", (CLASSES,)),
            )
        )
        self.slices: Sequence[tuple[int, int]] = [(i * SLICE_BATCHES, (i + 1) * SLICE_BATCHES) for i in range(slices)]
        self._teacher = np.random.default_rng([seed, 1]).standard_normal((INPUTS, CLASSES)).astype(np.float32)
        self._held_out = self._draw(np.random.default_rng([seed, 2]), HELD_OUT)

    def initial(self) -> dict[str, Array]:
        rng = np.random.default_rng([self._seed, 3])
        found = {}
        for part in self.layout.dense:
            scale = (2 / part.shape[0]) ** 0.5 if len(part.shape) == 2 else 0.0
            found[part.name] = (scale * rng.standard_normal(part.shape)).astype(np.float32)
        return found

    def bind(self, replica: Replica) -> None:
        """No module: `gradient` works on the replica itself."""

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        for _ in range(start, stop):
            yield self._draw(rng, self._batch)

    def rows(self, batch: Batch) -> dict[str, Rows]:
        return {}

    def gradient(
        self, replica: Replica, batch: Batch, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        loss = gradient(self.layout, replica.arena.numpy(), batch, replica.gradient.numpy())
        return {}, {"examples": float(self._batch), "loss": loss * self._batch}

    def schedule(self, progress: float) -> float:
        return 1.0

    def loss(self, arena: Array) -> float:
        """Of parameters [size], on the same `HELD_OUT` pictures each time."""
        _, z = _forward(self.layout.views(arena), self._held_out[0])
        return _loss(z, self._held_out[1])[0]

    def _draw(self, rng: np.random.Generator, n: int) -> Batch:
        x = rng.standard_normal((n, INPUTS), dtype=np.float32)
        return x, (x @ self._teacher).argmax(1)


def gradient(layout: Layout, arena: Array, batch: Batch, into: Array) -> float:
    """The batch's mean loss; its gradient at `arena` [size] is written to `into` [size]."""
    x, classes = batch
    w, g = layout.views(arena), layout.views(into)
    h, z = _forward(w, x)
    loss, dz = _loss(z, classes)
    dh = (dz @ w["w2"].T) * (h > 0)
    np.matmul(h.T, dz, out=g["w2"])
    np.matmul(x.T, dh, out=g["w1"])
    g["b2"][:], g["b1"][:] = dz.sum(0), dh.sum(0)
    return loss


def _forward(w: dict[str, Array], x: Array) -> tuple[Array, Array]:
    h = np.maximum(x @ w["w1"] + w["b1"], 0)
    return h, h @ w["w2"] + w["b2"]


def _loss(z: Array, classes: npt.NDArray[np.int64]) -> tuple[float, Array]:
    """The mean loss, and its gradient by z."""
    each = np.arange(len(z))
    e = np.exp(z - z.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    loss = float(-np.log(p[each, classes] + 1e-30).mean())
    p[each, classes] -= 1
    return loss, p / np.float32(len(z))
