"""Paired rounds: every system once a round, in rotating order, so that a machine's moods meet all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psdevise.bench.table import Row

RESAMPLES = 2000


@dataclass(frozen=True)
class Rounds:
    """values: system → what each round gave, in order of the rounds."""

    values: Mapping[str, Sequence[float]]
    errors: Mapping[str, int] = field(default_factory=dict)

    def rows(self, benchmark: str, case: str, metric: str, unit: str, reference: str) -> list[Row]:
        """A row per system, and for each system but the reference a row with the ratio and its interval."""
        base = np.asarray(self.values[reference], float)
        found = []
        for system, values in self.values.items():
            here, ratios = np.asarray(values, float), np.asarray(values, float) / base
            errors = self.errors.get(system, 0)
            ratio = float(np.median(ratios))
            found.append(Row(benchmark, case, system, metric, *median(here), unit, reference, ratio, errors))
            if system != reference:
                row = Row(benchmark, case, system, f"{metric}_ratio", *median(ratios), "1", reference, ratio, errors)
                found.append(row)
        return found


def paired(
    systems: Mapping[str, Callable[[int], float]], rounds: int, done: Callable[[int], None] = lambda n: None
) -> Rounds:
    """Runs each system once in each round; round r begins with system r mod n.

    Args:
        systems: name → called with the round's number, returns one figure.
        done: called with the number of finished turns.
    """
    names = list(systems)
    values: dict[str, list[float]] = {name: [] for name in names}
    turns = 0
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            values[name].append(systems[name](number))
            done(turns := turns + 1)
    return Rounds(values)


def median(values: npt.NDArray[np.float64] | Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval over rounds (percentile method, fixed seed)."""
    here = np.asarray(values, float)
    drawn = np.random.default_rng(0).integers(len(here), size=(RESAMPLES, len(here)))
    low, high = np.quantile(np.median(here[drawn], axis=1), [0.025, 0.975])
    return float(np.median(here)), float(low), float(high)
