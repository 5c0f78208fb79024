"""A replica's own Adagrad step in one pass over memory, of which torch's operations make several."""

from __future__ import annotations

from functools import partial

import numpy as np

from psdevise.compiled import compiled
from psdevise.server.protocol import Array


def adagrad(into: Array, fetched: Array, gradient: Array, sums: Array, rate: float, eps: float) -> None:
    """into = fetched − rate · g / (√(sums + g²) + eps), all float32 [n]."""
    _adagrad(into, fetched, gradient, sums, np.float32(rate), np.float32(eps))


@partial(compiled, error_model="numpy")
def _adagrad(into: Array, fetched: Array, gradient: Array, sums: Array, rate: np.float32, eps: np.float32) -> None:
    for i in range(len(into)):
        g = gradient[i]
        into[i] = fetched[i] - rate * g / (np.sqrt(sums[i] + g * g) + eps)
