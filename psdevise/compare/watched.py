"""Parameters on the way: what a learning curve is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from psdevise.systems.recipe import Learned
from psdevise.worker.module import Loss
from psdevise.worker.task import Figures


class Watched:
    """Keeps a module's parameters before chosen steps, with one worker: after 0, 1, 2, … updates.

    Attributes:
        kept: steps → parameters; steps: how many there have been.
    """

    def __init__(self, at: Sequence[int]) -> None:
        self._at = frozenset(at)
        self.kept: dict[int, Learned] = {}
        self.steps = 0

    def around(self, loss: Loss) -> Loss:
        def watched(module: nn.Module, batch: Any, rng: np.random.Generator) -> tuple[Tensor, Figures]:
            if self.steps in self._at:
                self.kept[self.steps] = {n: p.detach().numpy().copy() for n, p in module.named_parameters()}
            self.steps += 1
            return loss(module, batch, rng)

        return watched
