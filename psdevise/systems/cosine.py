"""A modern reference point: a softmax over cosines with temperature, as contrastive models train (Radford et al. 2021,
section 2.3), in place of the hinge; the labels' vectors stay as the text left them.

    loss = −log softmax_j(e^s · cos(M v, t_j))_true,   s learned from log(1/0.07), e^s at most 100
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from psdevise.labels.vectors import unit_rows
from psdevise.models.losses import cross_entropy
from psdevise.phases.joint import ProjectionOptions
from psdevise.server.optimizer import OptimizerOptions
from psdevise.systems import Scores
from psdevise.systems.heads import learn
from psdevise.systems.recipe import Known, Learned, Lesson, Values
from psdevise.worker.module import of_mean
from psdevise.worker.task import Figures

HEAD = ProjectionOptions(epochs=6, optimizer=OptimizerOptions(rate=0.0003))


@dataclass(frozen=True)
class CosineSoftmax:
    options: ProjectionOptions = HEAD
    name: str = "cosine"
    variant: str = "default"
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        vectors = torch.from_numpy(lesson.known.matrix(lesson.seen))
        return learn(lesson, _Head(vectors.shape[1]), partial(_loss, vectors=vectors), self.options)

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        return unit_rows(values @ learned["map.weight"].T) @ known.matrix(labels).T


class CosineHead(nn.Module):
    """e^s · M v / ‖M v‖: [B, width] → [B, dim]."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, dim, bias=False)
        nn.init.normal_(self.map.weight, std=0.01 * width**-0.5)
        self.log_scale = nn.Parameter(torch.tensor([np.log(1 / 0.07)], dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        return self.log_scale.exp().clamp(max=100.0) * F.normalize(self.map(values), dim=1)


@dataclass(frozen=True)
class _Head:
    dim: int

    def __call__(self, width: int) -> nn.Module:
        return CosineHead(width, self.dim)


def _loss(module: nn.Module, batch: Any, rng: np.random.Generator, vectors: Tensor) -> tuple[Tensor, Figures]:
    values, true = batch
    value = cross_entropy(module(values) @ vectors.to(values.device).T, true)
    return of_mean(value, len(true))
