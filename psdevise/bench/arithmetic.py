"""What moving and applying a gradient costs at the least, in this process: acts to be timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Act = Callable[[], Any]


def memcpy(size: int) -> Act:
    """Copies float32 [size]."""
    source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
    return lambda: np.copyto(target, source)


def adagrad(size: int) -> Act:
    """One step of torch's fused Adagrad on float32 [size]."""
    parameter = torch.zeros(size, requires_grad=True)
    parameter.grad = torch.ones(size)
    step: Act = torch.optim.Adagrad([parameter], lr=0.01, initial_accumulator_value=0.1, fused=True).step
    return step


def both(first: Act, second: Act) -> Act:
    def act() -> None:
        first()
        second()

    return act


def seconds(act: Act, repeats: int) -> float:
    """The median of so many times."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))
