"""What a shard asks of a gradient before it touches a parameter."""

from __future__ import annotations

import numpy as np

from psdevise.server.optimizer import all_finite
from psdevise.server.protocol import Gradient

FINITE = 1e38  # float32 ends at 3.4e38; a sum's rounding is far less


def problem_of(gradient: Gradient, dense: tuple[int, ...], tables: dict[str, tuple[int, ...]]) -> str:
    """What is wrong with it, or nothing: shapes, dtypes, rows out of range or twice, values that are not finite.

    Args:
        dense: the shape of the shard's range of the arena, float32.
        tables: (rows, dimension) of the shard's part of each table, float32.
    """
    if not isinstance(gradient.examples, int) or gradient.examples < 0:
        return f"{gradient.examples!r} is no number of examples"
    if gradient.dense is not None:
        if gradient.dense.dtype != np.float32 or gradient.dense.shape != dense:
            return f"expected float32 {dense}, got {gradient.dense.dtype} {gradient.dense.shape}"
        known = isinstance(gradient.bound, float) and 0 <= gradient.bound < FINITE
        if not known and not all_finite(gradient.dense):
            return "the gradient is not finite"
    for name, (ids, values) in gradient.rows.items():
        if name not in tables:
            return f"no table {name!r} here"
        rows, dim = tables[name]
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            return f"table {name!r}: row numbers are {ids.dtype} {ids.shape}, expected a list of integers"
        if values.dtype != np.float32 or values.shape != (len(ids), dim):
            return f"table {name!r}: expected float32 {(len(ids), dim)}, got {values.dtype} {values.shape}"
        if len(ids) and (ids.min() < 0 or ids.max() >= rows):
            return f"table {name!r}: rows out of range 0 to {rows - 1}"
        # In order, as clients send them, is seen at once; sorting them is what costs.
        if not (np.diff(ids) > 0).all() and len(np.unique(ids)) != len(ids):
            return f"table {name!r}: a row stands twice in one push"
        if not all_finite(values):
            return f"table {name!r}: the gradient is not finite"
    return ""
