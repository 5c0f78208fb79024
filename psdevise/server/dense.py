"""The update of a shard's range of the dense arena.

Adagrad (Duchi et al. 2011), one accumulator per parameter, kept here and never on the workers
(Dean et al. 2012, section 4.1):

    s ← s + g²,    p ← p − rate · g / (√s + eps)

by torch's fused kernel. Any other optimizer of torch.optim works by its name. Adagrad's flaw: its step only ever
shrinks, at the speed of the largest gradients.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adagrad import adagrad

from psdevise.errors import ConfigError
from psdevise.server.layout import Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Array


class DenseOptimizer(Protocol):
    """Steps a shard's range in place; frozen groups do not move."""

    def step(self, gradient: Tensor, rate: float) -> None:
        """One update with `gradient` [n] at `rate` times each group's learning rate."""

    def state(self) -> tuple[dict[str, Array], dict[str, float]]:
        """Its state in the arena's shape [n], not copied, and its scalars (step counts)."""

    def load(self, tensors: dict[str, Array], scalars: dict[str, float]) -> None:
        """Goes on from such a state; from its own beginning where nothing is given."""


def dense_optimizer(
    arena: Tensor, sums: Tensor, layout: Layout, shard: int, options: OptimizerOptions
) -> DenseOptimizer:
    """
    Args:
        arena: float32 [n], the shard's range.
        sums: float32 [n] zeros, where Adagrad keeps its sums of squares; they stay 0 where nothing is stepped.

    Raises:
        ConfigError: torch.optim has no such class, or it does not take the arguments.
    """
    if options.name == "adagrad":
        return FusedAdagrad(arena, sums, layout, shard, options)
    return TorchOptimizer(arena, layout, shard, options)


class FusedAdagrad:
    """What `torch.optim.Adagrad(fused=True)` does, without the object: to make one imports torch's compiler, which
    takes two seconds and 70 MB."""

    def __init__(self, arena: Tensor, sums: Tensor, layout: Layout, shard: int, options: OptimizerOptions) -> None:
        self._sums, self._options = sums, options
        self._runs = [
            (slice(run.start, run.stop), layout.groups[run.group], arena[run.start : run.stop])
            for run in layout.segments(shard)
            if not layout.groups[run.group].frozen
        ]
        for part, _, _ in self._runs:
            sums[part] = options.initial_accumulator
        self._steps = torch.zeros(())

    def step(self, gradient: Tensor, rate: float) -> None:
        for part, group, parameters in self._runs:
            adagrad(
                [parameters], [gradient[part]], [self._sums[part]], [torch.zeros(())], fused=True, foreach=False,
                lr=self._options.rate * group.rate * rate, weight_decay=group.weight_decay, lr_decay=0.0,
                eps=self._options.eps, maximize=False,
            )  # fmt: skip
        self._steps += 1

    def state(self) -> tuple[dict[str, Array], dict[str, float]]:
        return ({"sum": self._sums.numpy()}, {"step": float(self._steps)}) if self._runs else ({}, {})

    def load(self, tensors: dict[str, Array], scalars: dict[str, float]) -> None:
        if "sum" in tensors:
            for part, _, _ in self._runs:
                self._sums[part] = torch.from_numpy(tensors["sum"][part])
        self._steps.fill_(scalars.get("step", 0.0))


class TorchOptimizer:
    """A class of torch.optim over views of the arena, one parameter group per group of the layout."""

    def __init__(self, arena: Tensor, layout: Layout, shard: int, options: OptimizerOptions) -> None:
        self._n = arena.numel()
        self._segments = [s for s in layout.segments(shard) if not layout.groups[s.group].frozen]
        self._views = [arena[s.start : s.stop].requires_grad_(False) for s in self._segments]
        self._rates = [options.rate * layout.groups[s.group].rate for s in self._segments]
        groups: list[dict[str, Any]] = [
            {"params": [view], "lr": rate, "weight_decay": layout.groups[s.group].weight_decay}
            for s, view, rate in zip(self._segments, self._views, self._rates, strict=True)
        ]
        self._optimizer = _make(groups, options) if groups else None

    def step(self, gradient: Tensor, rate: float) -> None:
        if self._optimizer is None:
            return
        for segment, view in zip(self._segments, self._views, strict=True):
            view.grad = gradient[segment.start : segment.stop]
        for group, base in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        self._optimizer.step()
        for view in self._views:
            view.grad = None

    def state(self) -> tuple[dict[str, Array], dict[str, float]]:
        tensors: dict[str, Array] = {}
        scalars: dict[str, float] = {}
        if self._optimizer is None:
            return tensors, scalars
        for segment, view in zip(self._segments, self._views, strict=True):
            for key, value in self._optimizer.state[view].items():
                if not torch.is_tensor(value) or value.dim() == 0:
                    scalars[key] = max(scalars.get(key, 0.0), float(value))
                    continue
                whole = tensors.setdefault(key, np.zeros(self._n, np.float32))
                whole[segment.start : segment.stop] = value.numpy()
        return tensors, scalars

    def load(self, tensors: dict[str, Array], scalars: dict[str, float]) -> None:
        if self._optimizer is None:
            return
        for segment, view in zip(self._segments, self._views, strict=True):
            state = self._optimizer.state[view]
            for key, value in tensors.items():
                state[key] = torch.from_numpy(value[segment.start : segment.stop]).clone()
            for key, number in scalars.items():
                state[key] = torch.tensor(number, dtype=torch.float32)


def _make(groups: list[dict[str, Any]], options: OptimizerOptions) -> torch.optim.Optimizer:
    known = {n.lower(): c for n, c in vars(torch.optim).items() if isinstance(c, type)}
    cls = known.get(options.name)
    if cls is None or cls is torch.optim.Optimizer:
        raise ConfigError(
            f"torch.optim has no {options.name!r}",
            where="optimizer.name",
            mend=f"known: {', '.join(sorted(known))}",
        )
    try:
        return cls(groups, **options.arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as e:
        raise ConfigError(str(e), where="optimizer.arguments") from e
