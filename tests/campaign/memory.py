"""Memory and file descriptors of processes over time, and whether they grow."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import psutil

TOLERATED = 0.05  # of the level, over the whole time; what grows less is flat, however surely it grows


@dataclass(frozen=True)
class Sample:
    """`name`: whose and what, for instance "worker, visual: PSS MB"; samples of one cycle are taken together."""

    name: str
    cycle: int
    value: float


@dataclass(frozen=True)
class Growth:
    """`level`: the median of the cycles; `slope` per cycle with its 95 % interval; `grown` from first to last."""

    name: str
    cycles: int
    level: float
    slope: float
    low: float
    high: float

    @property
    def grown(self) -> float:
        return self.slope * (self.cycles - 1)

    def flat(self, slack: float) -> bool:
        """Whether it may not grow at all (the interval holds 0), or grows by less than is tolerated.

        Args:
            slack: absolute, in its own unit: allowed beyond the share of the level.
        """
        return self.low <= 0 or self.grown <= TOLERATED * self.level + slack


def look(who: str, pid: int, cycle: int) -> list[Sample]:
    """PSS and USS in MB and open descriptors of a process; nothing of one that is gone."""
    try:
        process = psutil.Process(pid)
        memory, descriptors = process.memory_full_info(), process.num_fds()
    except (psutil.Error, OSError):
        return []
    return [
        Sample(f"{who}: PSS MB", cycle, memory.pss / 1e6),
        Sample(f"{who}: USS MB", cycle, memory.uss / 1e6),
        Sample(f"{who}: descriptors", cycle, float(descriptors)),
    ]


def growth(samples: Iterable[Sample]) -> list[Growth]:
    """A line through the medians of the cycles, by least squares; the first cycle, in which everything is loaded, does
    not count. Of two there is no interval, and names that were seen in fewer are left out."""
    by_name: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        by_name[sample.name][sample.cycle].append(sample.value)
    found = []
    for name, cycles in sorted(by_name.items()):
        at = sorted(c for c in cycles if c > 0)
        if len(at) < 2:
            continue
        x, y = np.array(at, float), np.array([statistics.median(cycles[c]) for c in at])
        slope, start = np.polyfit(x, y, 1)
        rest = y - (slope * x + start)
        wide = 0.0
        if len(x) > 2:
            error = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
            wide = _t95(len(x) - 2) * error
        found.append(Growth(name, len(x), float(np.median(y)), float(slope), slope - wide, slope + wide))
    return found


def _t95(degrees: int) -> float:
    """The 0.975 quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))
