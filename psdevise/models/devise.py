"""The two heads on a core: the softmax layer of the visual phase, and DeViSE's projection in its place."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Softmax(nn.Module):
    """Core and a linear layer of one logit per class: float [B, 3, H, W] → [B, classes]."""

    def __init__(self, core: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.core = core
        self.head = nn.Linear(features, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.core(pictures))
        return logits


class DeViSE(nn.Module):
    """x = M v, v the core's output: float [B, 3, H, W] → [B, dim] (Frome et al. 2013, 3.3).

    `projection.weight` is M. It starts at zero: hinge rank loss and squared distance move it only inside the
    span of the training labels' vectors, and whatever a random start has outside stays in the image vectors
    as noise, which hardly costs hits on seen labels but up to a third of those on unseen ones.
    `normalise` makes the output a unit vector (in its loss the paper does not); M then starts small and
    random, because a zero vector has no direction.
    """

    def __init__(self, core: nn.Module, features: int, dim: int, normalise: bool = False) -> None:
        super().__init__()
        self.core = core
        self.projection = nn.Linear(features, dim, bias=False)
        if normalise:
            nn.init.normal_(self.projection.weight, std=0.01 * features**-0.5)
        else:
            nn.init.zeros_(self.projection.weight)
        self.normalise = normalise

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.project(self.core(pictures))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """The map alone, for features [B, features] that were computed before: → [B, dim]."""
        projected: torch.Tensor = self.projection(features)
        return F.normalize(projected, dim=1) if self.normalise else projected
