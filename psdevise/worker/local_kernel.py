"""A replica's own Adagrad step in one pass over memory, of which torch's operations make several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from psdevise.server.protocol import Array


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    kept: Callable[..., Any]
    try:
        kept = njit(error_model="numpy", cache=True)(function)
    except RuntimeError:  # nowhere to keep it
        kept = njit(error_model="numpy")(function)
    return kept


def adagrad(into: Array, fetched: Array, gradient: Array, sums: Array, rate: float, eps: float) -> None:
    """into = fetched − rate · g / (√(sums + g²) + eps), all float32 [n]."""
    _adagrad(into, fetched, gradient, sums, np.float32(rate), np.float32(eps))


@_compiled
def _adagrad(into: Array, fetched: Array, gradient: Array, sums: Array, rate: np.float32, eps: np.float32) -> None:
    for i in range(len(into)):
        g = gradient[i]
        into[i] = fetched[i] - rate * g / (np.sqrt(sums[i] + g * g) + eps)
