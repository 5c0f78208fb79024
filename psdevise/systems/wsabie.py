"""WSABIE (Weston, Bengio and Usunier, IJCAI 2011): map and label vectors learned together with the WARP loss.

    f_y(x) = w_y · V x,   loss = L(⌊(Y−1)/N⌋) · max(0, 1 − f_y + f_ȳ),   L(r) = Σ_{i ≤ r} 1/i

where the false label ȳ is the first of at most Y−1 draws with replacement that violates the margin, the N-th. The rank
estimate weighs the top of the list. Its label vectors exist for training labels only: it names no unseen one.

The paper steps and then scales columns back to ‖V_i‖ ≤ C, ‖w_y‖ ≤ C. Here the shards step, who know no model: the map
and the vectors that are used are the stored ones, scaled back to the bound. The feasible set is the same, and what
would leave it gets no gradient outward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.phases.joint import ProjectionOptions
from psdevise.server.optimizer import OptimizerOptions
from psdevise.systems import Scores
from psdevise.systems.heads import learn
from psdevise.systems.recipe import Known, Learned, Lesson, Values, columns
from psdevise.worker.module import of_mean
from psdevise.worker.task import Figures

HEAD = ProjectionOptions(epochs=6, optimizer=OptimizerOptions(rate=0.05))
RankWeight = Literal["harmonic", "log"]


@dataclass(frozen=True)
class Wsabie:
    """
    Args:
        dim: of the joint space.
        bound: C, the largest norm of a label's vector and of a feature's column of the map.
        rank_weight: L(r): Σ 1/i, or its approximation log(1 + r).
    """

    dim: int = 100
    bound: float = 1.0
    rank_weight: RankWeight = "harmonic"
    options: ProjectionOptions = HEAD
    name: str = "wsabie"
    variant: str = "default"
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        make = _Make(len(lesson.seen), self.dim, self.bound)
        learned = learn(lesson, make, partial(_loss, rank_weight=self.rank_weight), self.options)
        tensors = {name: _within(torch.from_numpy(value), self.bound).numpy() for name, value in learned.items()}
        return dict(tensors)

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        return columns(values @ learned["map"] @ learned["labels"].T, known.seen, labels)


class WsabieHead(nn.Module):
    """values [B, width] → f [B, classes]. `map` is Vᵀ [width, dim]: its rows are the columns that are bounded."""

    def __init__(self, width: int, classes: int, dim: int, bound: float) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.randn(width, dim) * (0.1 * (width * dim) ** -0.5))
        self.labels = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)
        self.bound = bound

    def forward(self, values: Tensor) -> Tensor:
        return values @ _within(self.map, self.bound) @ _within(self.labels, self.bound).T


def warp(
    scores: Tensor, true: Tensor, generator: torch.Generator, rank_weight: RankWeight = "harmonic", margin: float = 1.0
) -> Tensor:
    """The WARP loss, mean over pictures and summed over a picture's true labels.

    Args:
        scores: f [B, Y].
        true: bool [B, Y]; a picture's other true labels are never drawn.
        generator: draws the false labels.
    """
    picture, label = true.nonzero(as_tuple=True)
    false = (~true[picture]).float()
    own = scores[picture, label][:, None]
    some = false.sum(dim=1) > 0
    if not bool(some.any()):
        return scores.sum() * 0.0
    draws = scores.shape[1] - 1
    drawn = torch.multinomial(false[some], draws, replacement=True, generator=generator)
    slack = margin - own[some] + scores[picture[some]].gather(1, drawn)
    violated, first = (slack > 0).max(dim=1)
    rank = torch.div(false[some].sum(dim=1), first + 1, rounding_mode="floor").long()
    weight = rank_weights(draws, rank_weight).to(scores)[rank]
    hinge = slack.gather(1, first[:, None])[:, 0]
    return (weight * hinge * violated).sum() / len(scores)


def rank_weights(ranks: int, kind: RankWeight = "harmonic") -> Tensor:
    """L(0), L(1), …, L(ranks)."""
    if kind == "log":
        return torch.log1p(torch.arange(ranks + 1, dtype=torch.float64))
    return torch.cat([torch.zeros(1, dtype=torch.float64), (1 / torch.arange(1.0, ranks + 1).double()).cumsum(0)])


def _within(rows: Tensor, bound: float) -> Tensor:
    """Rows longer than the bound, scaled back to it."""
    norm = rows.norm(dim=1, keepdim=True)
    return rows * (bound / norm.clamp_min(1e-12)).clamp_max(1.0)


@dataclass(frozen=True)
class _Make:
    classes: int
    dim: int
    bound: float

    def __call__(self, width: int) -> nn.Module:
        return WsabieHead(width, self.classes, self.dim, self.bound)


def _loss(module: nn.Module, batch: Any, rng: np.random.Generator, rank_weight: RankWeight) -> tuple[Tensor, Figures]:
    values, true = batch
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    value = warp(module(values), true, generator, rank_weight)
    return of_mean(value, len(true))
