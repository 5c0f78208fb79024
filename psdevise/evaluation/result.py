"""One figure of the results, exactly as `results.json` holds it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Images = Literal["seen", "unseen", "seen+unseen"]


@dataclass(frozen=True)
class Result:
    """`value`, `low`, `high`, `chance`, `ceiling` are shares from 0 to 1 where the metric is one, or None."""

    system: str
    variant: str
    dataset: str
    split: str
    seed: int
    images: Images
    candidates: Images
    metric: str
    k: int | None
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    ceiling: float | None
    n: int


def plain(results: list[Result]) -> list[dict[str, Any]]:
    """JSON-ready rows; what is not finite is null."""
    return [{k: _finite(v) for k, v in asdict(r).items()} for r in results]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
