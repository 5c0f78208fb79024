"""The softmax baseline on frozen features, and ConSE, which needs nothing more than it and the label vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.labels.vectors import unit_rows
from psdevise.models.losses import cross_entropy
from psdevise.phases.joint import ProjectionOptions
from psdevise.server.optimizer import OptimizerOptions
from psdevise.systems import Scores
from psdevise.systems.heads import learn
from psdevise.systems.recipe import Known, Learned, Lesson, Values, columns
from psdevise.worker.module import of_mean
from psdevise.worker.task import Figures

HEAD = ProjectionOptions(epochs=6, optimizer=OptimizerOptions(rate=0.1))


@dataclass(frozen=True)
class SoftmaxHead:
    """softmax(W v + b) over the seen classes; it cannot name an unseen one."""

    options: ProjectionOptions = HEAD
    name: str = "softmax"
    variant: str = "default"
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        classes = len(lesson.seen)
        return learn(lesson, _Linear(classes), _loss, self.options)

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        return columns(probabilities(learned, values), known.seen, labels)


@dataclass(frozen=True)
class ConSE:
    """Norouzi et al., ICLR 2014 (arXiv 1312.5650): a picture is the convex combination of the T likeliest training
    labels' unit vectors,

        f(x) = Σ_{t ≤ T} p(y_t | x) s(y_t) / Σ_{t ≤ T} p(y_t | x),   score = cos(f(x), s(y)).

    No training beyond softmax's. Its flaw: f(x) stays in the convex hull of the seen labels.
    """

    top: int = 10
    name: str = "conse"
    variant: str = "default"
    needs: tuple[str, ...] = ("softmax",)

    def fit(self, lesson: Lesson) -> Learned:
        return lesson.fitted["softmax"]

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        embedded = convex_combination(probabilities(learned, values), known.matrix(known.seen), self.top)
        return unit_rows(embedded) @ known.matrix(labels).T


def convex_combination(probabilities: Values, vectors: Values, top: int) -> Values:
    """[n, classes] probabilities, [classes, dim] unit vectors → [n, dim]; all of them where there are fewer than T."""
    top = min(top, probabilities.shape[1])
    best = np.argpartition(-probabilities, top - 1, axis=1)[:, :top]
    weights = np.zeros_like(probabilities)
    np.put_along_axis(weights, best, np.take_along_axis(probabilities, best, axis=1), axis=1)
    return weights / weights.sum(axis=1, keepdims=True) @ vectors


def probabilities(learned: Learned, values: Values) -> Values:
    """softmax(W v + b), float32 [n, classes]."""
    logits = torch.from_numpy(values @ learned["weight"].T + learned["bias"])
    return logits.softmax(dim=1).numpy()


@dataclass(frozen=True)
class _Linear:
    """W = b = 0 at the start, as is usual for a convex problem."""

    classes: int

    def __call__(self, width: int) -> nn.Module:
        layer = nn.Linear(width, self.classes)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer


def _loss(module: nn.Module, batch: Any, rng: np.random.Generator) -> tuple[Tensor, Figures]:
    values, true = batch
    value = cross_entropy(module(values), true)
    return of_mean(value, len(true))
