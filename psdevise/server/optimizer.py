"""The options of a shard's updates, and the update rules of its tables; the arena's are in `dense`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from psdevise.config import option
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
