"""What the benchmarks train: three models on drawn pictures, the same modules for every system.

Each module has a mark at its first and at its last place: 64 parameters whose gradient is 1 in every step. They cost
nothing, and they tell the truth about a parameter server: a pull in which the two differ was torn, and Adagrad's sum of
squares, which grows by exactly n² with a push of n steps, counts the pushes that were applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.bench.gate import Gate
from psdevise.models.alexnet import alexnet
from psdevise.worker.module import ModuleTask, of_mean

MARK = 64
FIRST, LAST = "first.weight", "last.weight"
INITIAL_ACCUMULATOR = 0.1
RATE = 1e-4  # so small that nothing is learned by heart: steps of every round do the same arithmetic
DRAWN = 8  # different batches
Batch = tuple[Tensor, Tensor]


class Mark(nn.Module):
    """A module of its own, because parameters stand in the order of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(MARK))


class Marked(nn.Module):
    """`body` with a mark before and behind it; called with pictures and classes it gives their loss: cross-entropy,
    plus 0 with a gradient of 1 for each parameter of the marks."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.first = Mark()
        self.body = body
        self.last = Mark()

    def forward(self, pictures: Tensor, classes: Tensor) -> Tensor:
        marks = self.first.weight.sum() + self.last.weight.sum()
        return nn.functional.cross_entropy(self.body(pictures), classes) + (marks - marks.detach())

    @property
    def torn(self) -> bool:
        """Whether first and last are of different versions of the parameters."""
        return float(self.first.weight.detach()[0]) != float(self.last.weight.detach()[0])


@dataclass(frozen=True)
class Case:
    """A model: what makes its body, its pictures' shape, classes and batch, and how many batches a slice has."""

    body: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    batch: int
    slice_batches: int

    def module(self) -> Marked:
        torch.manual_seed(0)
        return Marked(self.body())

    def batches(self) -> list[Batch]:
        """`DRAWN` batches of noise: float32 [batch, *shape], int64 [batch]."""
        drawn = torch.Generator().manual_seed(1)
        return [
            (
                torch.randn(self.batch, *self.shape, generator=drawn),
                torch.randint(self.classes, (self.batch,), generator=drawn),
            )
            for _ in range(DRAWN)
        ]


def cnn32(classes: int = 10) -> nn.Module:
    """0.55 M parameters for 32 px: three convolutions, two dense layers."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2048, 224), nn.ReLU(), nn.Linear(224, classes)),
    )


def mlp(classes: int = 10) -> nn.Module:
    """4.2 M parameters for 32 px: two hidden layers of 1,024."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()),
        nn.Linear(1024, classes),
    )


def alexnet224() -> nn.Module:
    """The paper's net with its 1,000-way softmax layer: 61 M parameters."""
    core = alexnet(224)
    return nn.Sequential(core, nn.Linear(core.features, 1000))


CASES = {
    "cnn32": Case(cnn32, (3, 32, 32), 10, batch=64, slice_batches=40),
    "mlp": Case(mlp, (3, 32, 32), 10, batch=64, slice_batches=40),
    "alexnet224": Case(alexnet224, (3, 224, 224), 1000, batch=16, slice_batches=16),
}


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    """The one that every system uses: torch's fused Adagrad."""
    return torch.optim.Adagrad(
        parameters, lr=RATE, initial_accumulator_value=INITIAL_ACCUMULATOR, eps=1e-10, fused=True
    )


def applied(sum_of_squares: SupportsFloat, n: int = 1) -> int:
    """How many pushes of `n` steps each a mark's sum of squares holds."""
    return round((float(sum_of_squares) - INITIAL_ACCUMULATOR) / n**2)


def gated_task(case: Case, gate: Gate, n: int, slices: int, epochs: int) -> ModuleTask:
    """A Task like any other, which waits for its turn before each step.

    Args:
        n: steps per push; a slice ends early only behind a whole number of pushes.
    """
    drawn: list[Batch] = []

    def loss(module: nn.Module, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Marked)
        gate.enter(wrong=int(module.torn))
        gate.count()
        value = module(*batch)
        return of_mean(value, len(batch[1]))

    def read(start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        if not drawn:
            drawn.extend(case.batches())
        for i in range((stop - start) // case.batch):
            if i % n == 0 and i and gate.finished:
                return
            yield drawn[i % DRAWN]

    rows = case.slice_batches * case.batch
    return ModuleTask(case.module(), loss, read, [(i * rows, (i + 1) * rows) for i in range(slices)], epochs)
