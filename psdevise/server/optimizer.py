"""The update rules of a shard, over its part of the arena and of the tables.

Adagrad (Duchi et al. 2011), one accumulator per parameter, kept here and never on the workers
(Dean et al. 2012, section 4.1):

    s ← s + g²,    p ← p − rate · g / (√s + eps)

On the arena it is `torch.optim.Adagrad(fused=True)` itself. Any other optimizer of torch.optim works on
the arena by its name. Adagrad's flaw: its step only ever shrinks, at the speed of the largest gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from psdevise.config import option
from psdevise.errors import ConfigError
from psdevise.server.layout import Layout
from psdevise.server.protocol import Array, Rows

TableRule = Literal["sgd", "sum", "adagrad", "adagrad_row"]


@dataclass(frozen=True)
class OptimizerOptions:
    name: str = option("adagrad", "optimizer on the shards: adagrad, or another class of torch.optim in lower case")
    rate: float = option(0.01, "learning rate", low=0.0)
    initial_accumulator: float = option(0.1, "Adagrad: sum of squares that each parameter starts with", low=0.0)
    eps: float = option(1e-10, "Adagrad: added to the root of the sum of squares", low=0.0)
    arguments: dict[str, Any] = option({}, "further keyword arguments of another torch.optim class")
    table_rule: TableRule = option(
        "adagrad",
        "update of embedding rows: adagrad (an accumulator per parameter), adagrad_row (one per row),"
        " sgd (p -= rate * g), sum (p -= g: the worker's own displacement is added as it is)",
    )


class DenseOptimizer:
    """A torch optimizer over views of one arena, one parameter group per group of the layout.

    Args:
        arena: float32 [n], the shard's range; stepped in place.
        sums: float32 [n], where Adagrad keeps its sums of squares; zero where nothing is stepped.

    Raises:
        ConfigError: torch.optim has no such class, or it does not take the arguments.
    """

    def __init__(
        self, arena: torch.Tensor, sums: torch.Tensor, layout: Layout, shard: int, options: OptimizerOptions
    ) -> None:
        self._arena, self._sums = arena, sums
        self._segments = [s for s in layout.segments(shard) if not layout.groups[s.group].frozen]
        self._views = [arena[s.start : s.stop].requires_grad_(False) for s in self._segments]
        self._rates = [options.rate * layout.groups[s.group].rate for s in self._segments]
        groups: list[dict[str, Any]] = [
            {
                "params": [view],
                "lr": rate,
                "weight_decay": layout.groups[s.group].weight_decay,
            }
            for s, view, rate in zip(self._segments, self._views, self._rates, strict=True)
        ]
        self._optimizer = _make(groups, options) if groups else None
        if self._optimizer is not None and options.name == "adagrad":
            for segment, view in zip(self._segments, self._views, strict=True):
                part = sums[segment.start : segment.stop]
                part.copy_(self._optimizer.state[view]["sum"])
                self._optimizer.state[view]["sum"] = part

    def step(self, gradient: torch.Tensor, rate: float) -> None:
        """One update with `gradient` [n] at `rate` times each group's learning rate."""
        if self._optimizer is None:
            return
        for segment, view in zip(self._segments, self._views, strict=True):
            view.grad = gradient[segment.start : segment.stop]
        for group, base in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        self._optimizer.step()
        for view in self._views:
            view.grad = None

    def accumulators(self) -> Array:
        """Adagrad's sums of squares [n], not copied; zeros where nothing is kept (frozen, another optimizer)."""
        return self._sums.numpy()

    def state(self) -> tuple[dict[str, Array], dict[str, float]]:
        """Optimizer state as arrays in the arena's shape, and its scalars (step counts)."""
        tensors: dict[str, Array] = {}
        scalars: dict[str, float] = {}
        if self._optimizer is None:
            return tensors, scalars
        for segment, view in zip(self._segments, self._views, strict=True):
            for key, value in self._optimizer.state[view].items():
                if not torch.is_tensor(value) or value.dim() == 0:
                    scalars[key] = max(scalars.get(key, 0.0), float(value))
                    continue
                whole = tensors.setdefault(key, np.zeros(self._arena.numel(), np.float32))
                whole[segment.start : segment.stop] = value.numpy()
        return tensors, scalars

    def load(self, tensors: dict[str, Array], scalars: dict[str, float]) -> None:
        if self._optimizer is None or not (tensors or scalars):
            return
        for segment, view in zip(self._segments, self._views, strict=True):
            state = self._optimizer.state[view]
            for key, value in tensors.items():
                part = torch.from_numpy(value[segment.start : segment.stop])
                if key in state and torch.is_tensor(state[key]) and state[key].shape == part.shape:
                    state[key].copy_(part)
                else:
                    state[key] = part.clone()
            for key, number in scalars.items():
                state[key] = torch.tensor(number, dtype=torch.float32)


def _make(groups: list[dict[str, Any]], options: OptimizerOptions) -> torch.optim.Optimizer:
    if options.name == "adagrad":
        return torch.optim.Adagrad(
            groups, initial_accumulator_value=options.initial_accumulator, eps=options.eps, fused=True
        )
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


class TableOptimizer:
    """One embedding table's rows on this shard, [rows, dim], and its update rule.

    Rows of a push must be without repeats: Adagrad is not linear, so a row's gradients are summed before
    they are squared, and that is the sender's part.
    """

    def __init__(self, values: Array, options: OptimizerOptions) -> None:
        self.values = values
        self._options = options
        initial = options.initial_accumulator
        self.sums: Array | None = None
        if options.table_rule == "adagrad":
            self.sums = np.full(values.shape, initial, np.float32)
        elif options.table_rule == "adagrad_row":
            self.sums = np.full((len(values), 1), initial, np.float32)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.sums is None else self.sums.nbytes)

    def take(self, rows: Rows, into: Array | None = None) -> Array:
        """A copy of `rows` [n], in memory of its own or `into` [n, dim]."""
        if into is None:
            return self.values[rows]
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self.values)):
            raise IndexError(f"rows out of range 0 to {len(self.values) - 1}")
        # With any other mode numpy would fill a copy of `into` first.
        return np.take(self.values, rows, axis=0, out=into, mode="clip")

    def step(self, rows: Rows, gradient: Array, rate: float) -> None:
        """Updates `rows` [n] with `gradient` [n, dim]."""
        rule = self._options.table_rule
        if rule == "sum":
            self.values[rows] -= gradient
            return
        scale = np.float32(self._options.rate * rate)
        if self.sums is None:
            self.values[rows] -= scale * gradient
            return
        squares = np.square(gradient)
        if rule == "adagrad_row":
            squares = squares.mean(axis=1, keepdims=True)
        sums = self.sums[rows] + squares
        self.sums[rows] = sums
        self.values[rows] -= scale * gradient / (np.sqrt(sums) + np.float32(self._options.eps))


def all_finite(values: npt.NDArray[np.float32]) -> bool:
    """Whether no value is NaN or infinite: one pass for the sum, a second only if that is not finite
    (a sum of finite values may itself overflow)."""
    tensor = torch.from_numpy(values)
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
