"""The softmax baseline: the visual model as it was trained, over the classes it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from psdevise.models.core import CoreOptions, normalise
from psdevise.models.devise import Softmax
from psdevise.systems import Pictures, Scores

BATCH = 256


class SoftmaxSystem:
    """
    Args:
        classes: in the order of the softmax layer.
    """

    name, variant = "softmax", "default"

    def __init__(self, module: Softmax, core: CoreOptions, classes: Sequence[str]) -> None:
        self._module = module.eval()
        self._core = core
        self._index = {name: i for i, name in enumerate(classes)}

    def probabilities(self, pictures: Pictures) -> Scores:
        """float32 [n, classes] of pictures uint8 [n, size, size, 3]."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                logits = self._module(normalise(pictures[start : start + BATCH], self._core))
                parts.append(logits.float().softmax(dim=1).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self._index)), np.float32)

    def score(self, pictures: Pictures, labels: Sequence[str]) -> Scores:
        known = [(i, self._index[name]) for i, name in enumerate(labels) if name in self._index]
        scores = np.full((len(pictures), len(labels)), -np.inf, np.float32)
        if known:
            columns, classes = map(list, zip(*known, strict=True))
            scores[:, columns] = self.probabilities(pictures)[:, classes]
        return scores
