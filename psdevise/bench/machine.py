"""This machine, in this run: memcpy, fused Adagrad and an empty Ray call. Machines differ threefold in each, so no
absolute time means anything without them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from psdevise.bench.rounds import median
from psdevise.bench.table import Row

MEGABYTES = 16
REPEATS = 30


def figures(benchmark: str) -> list[Row]:
    """Rows of case `machine`: memcpy and one step of fused Adagrad over 16 MB of float32, one thread, warm pages."""
    return [
        _row(benchmark, f"memcpy of {MEGABYTES} MB", _timed(_memcpy())),
        _row(benchmark, f"fused Adagrad on {MEGABYTES} MB", _timed(_adagrad())),
    ]


def empty_call(benchmark: str, call: Callable[[], object]) -> Row:
    """A row for the round trip of `call`: an empty method of an actor on this host, awaited."""
    return _row(benchmark, "empty Ray call", _timed(call, 200))


def _row(benchmark: str, what: str, milliseconds: list[float]) -> Row:
    return Row(benchmark, "machine", what, "milliseconds", *median(milliseconds), "ms")


def _timed(act: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        act()
        act()
        taken = []
        for _ in range(repeats):
            begin = time.perf_counter()
            act()
            taken.append((time.perf_counter() - begin) * 1e3)
        return taken
    finally:
        torch.set_num_threads(threads)


def _memcpy() -> Callable[[], object]:
    source = np.ones(MEGABYTES * 2**18, np.float32)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def _adagrad() -> Callable[[], object]:
    parameter = torch.zeros(MEGABYTES * 2**18, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    return torch.optim.Adagrad([parameter], lr=0.01, initial_accumulator_value=0.1, fused=True).step
