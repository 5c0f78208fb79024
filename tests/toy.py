"""A small classification task on drawn data: what the core's tests train."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.server.layout import Group
from psdevise.worker.module import ModuleTask

ROWS, FEATURES, CLASSES, BATCH = 96, 6, 3, 4


def data() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    y = (x @ rng.standard_normal((FEATURES, CLASSES))).argmax(1)
    return torch.from_numpy(x), torch.from_numpy(y)


def module(batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(3)
    middle: list[nn.Module] = [nn.BatchNorm1d(8)] if batch_norm else []
    return nn.Sequential(nn.Linear(FEATURES, 8), *middle, nn.ReLU(), nn.Linear(8, CLASSES))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    x, y = batch
    value = nn.functional.cross_entropy(model(x), y)
    return value, {"examples": float(len(y)), "loss": float(value.detach()) * len(y)}


def read(start: int, stop: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = data()
    order = start + torch.from_numpy(rng.permutation(stop - start))
    for part in order.split(BATCH):
        yield x[part], y[part]


def task(epochs: int = 2, batch_norm: bool = False, slices: int = 12) -> ModuleTask:
    step = ROWS // slices
    return ModuleTask(
        module(batch_norm),
        loss,
        read,
        [(i * step, (i + 1) * step) for i in range(slices)],
        epochs,
        groups={"0.": "first"},
        rates={"default": Group(), "first": Group(rate=0.5, weight_decay=1e-3)},
    )
