"""A Task made of a PyTorch module, a loss and a reader: what visual, joint and a user's own model are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.server.layout import Group, Layout
from psdevise.server.protocol import Array, Rows
from psdevise.worker.replica import Replica, named_layout, values
from psdevise.worker.task import Batch, Figures, TableGradient

Loss = Callable[[nn.Module, Any, np.random.Generator], tuple[Tensor, Figures]]
"""(module, batch on its device, generator) → the mean loss of the batch, and its figures."""


def of_mean(loss: Tensor, examples: int, **counts: float) -> tuple[Tensor, Figures]:
    """What a Loss returns: a batch's mean loss, with `examples`, the loss summed over them, and further counts."""
    return loss, {"examples": float(examples), "loss": float(loss.detach()) * examples, **counts}


class ModuleTask:
    """
    Args:
        module: its trainable parameters are sharded; frozen ones (`requires_grad=False`) stay where they are.
        loss: returns the scalar to differentiate, and figures with `examples` and `loss` (summed).
        read: (start, stop, rng) → batches; tensors in a batch are moved to the worker's device.
        groups: parameter-name prefix → group name, and `rates` the groups themselves.
        schedule: learning-rate multiplier at a progress from 0 to 1.
        fixed_statistics: batch norm uses, and does not move, the statistics it has.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        read: Callable[[int, int, np.random.Generator], Iterator[Batch]],
        slices: Sequence[tuple[int, int]],
        epochs: int,
        groups: Mapping[str, str] | None = None,
        rates: Mapping[str, Group] | None = None,
        schedule: Callable[[float], float] = lambda progress: 1.0,
        precision: Literal["fp32", "bf16"] = "fp32",
        fixed_statistics: bool = False,
    ) -> None:
        self.module, self._loss, self._read = module, loss, read
        self.slices, self.epochs = slices, epochs
        self._schedule, self._precision, self._fixed_statistics = schedule, precision, fixed_statistics
        dense, buffers = named_layout(module, dict(groups or {}))
        self.layout = Layout(dense=dense, buffers=buffers, groups=dict(rates or {"default": Group()}))
        self._device = torch.device("cpu")

    def initial(self) -> Mapping[str, Array]:
        return values(self.module)

    def bind(self, replica: Replica) -> None:
        self._device = replica.device
        replica.bind(self.module)
        self.module.train()
        if self._fixed_statistics:
            for part in self.module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        return self._read(start, stop, rng)

    def rows(self, batch: Batch) -> dict[str, Rows]:
        return {}

    def gradient(
        self, replica: Replica, batch: Batch, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        # Dropout and the like draw from torch's generator: seeded per batch, a repeated batch is the same. (Not by
        # torch.manual_seed, which formats a stack trace for every kind of accelerator that is not there.)
        seed = int(rng.integers(2**31))
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)
        batch = _to(batch, self._device)
        half = self._precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16) if half else nullcontext():
            loss, figures = self._loss(self.module, batch, rng)
        with replica.taking():
            loss.backward()  # type: ignore[no-untyped-call]
        return {}, figures

    def schedule(self, progress: float) -> float:
        return self._schedule(progress)


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        return tuple(_to(part, device) for part in batch)
    return batch


class WarmupCosine:
    """multiplier(p) = min(1, p/warmup) · (floor + (1−floor) · (1 + cos πp)/2)."""

    def __init__(self, warmup: float = 0.0, floor: float = 0.0) -> None:
        self._warmup, self._floor = warmup, floor

    def __call__(self, progress: float) -> float:
        rise = min(1.0, (progress + 1e-3) / self._warmup) if self._warmup > 0 else 1.0
        return rise * (self._floor + (1 - self._floor) * (1 + math.cos(math.pi * progress)) / 2)


class Linear:
    """multiplier(p) = 1 − (1−floor) · p: word2vec's and many others' schedule."""

    def __init__(self, floor: float = 1e-4) -> None:
        self._floor = floor

    def __call__(self, progress: float) -> float:
        return 1 - (1 - self._floor) * progress


class Constant:
    def __call__(self, progress: float) -> float:
        return 1.0


Schedule = Literal["constant", "linear", "cosine"]


def schedule(name: Schedule, warmup: float = 0.0) -> Callable[[float], float]:
    if name == "constant" and warmup == 0:
        return Constant()
    if name == "linear" and warmup == 0:
        return Linear()
    if name == "cosine":
        return WarmupCosine(warmup)
    base: Callable[[float], float] = Linear() if name == "linear" else Constant()
    return _Rising(base, warmup)


class _Rising:
    def __init__(self, base: Callable[[float], float], warmup: float) -> None:
        self._base, self._warmup = base, warmup

    def __call__(self, progress: float) -> float:
        return min(1.0, (progress + 1e-3) / self._warmup) * self._base(progress)
