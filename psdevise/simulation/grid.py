"""Every combination of what a user wants to compare, each as options of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from psdevise.simulation.options import SimulateOptions


@dataclass(frozen=True)
class Grid:
    """What is varied; what is empty stays as the options say. `rates`: learning rates of the small model."""

    workers: Sequence[int] = ()
    shards: Sequence[int] = ()
    n_push: Sequence[int] = ()
    compression: Sequence[float] = ()
    gbit: Sequence[float] = ()
    rates: Sequence[float] = ()

    def of(self, base: SimulateOptions) -> list[SimulateOptions]:
        """`n_push` sets n_fetch too, and lets the replica step by itself between two fetches.

        Raises:
            ConfigError: a value that the options do not take.
        """
        whole = itertools.product(self.workers or (None,), self.shards or (None,), self.n_push or (None,))
        other = itertools.product(self.compression or (None,), self.gbit or (None,), self.rates or (None,))
        return [_with(base, *a, *b) for a, b in itertools.product(whole, other)]


def _with(
    options: SimulateOptions,
    workers: int | None,
    shards: int | None,
    n_push: int | None,
    compression: float | None,
    gbit: float | None,
    rate: float | None,
) -> SimulateOptions:
    if n_push is not None:
        step = options.downpour.local_step
        step = "none" if n_push == 1 else "adagrad" if step == "none" else step
        downpour = replace(options.downpour, n_fetch=n_push, n_push=n_push, local_step=step)
        options = replace(options, downpour=downpour)
    if compression is not None:
        options = replace(options, model=replace(options.model, bytes_per_value=compression))
    if gbit is not None:
        options = replace(options, hosts=replace(options.hosts, gbit=gbit))
    if rate is not None:
        options = replace(options, optimizer=replace(options.optimizer, rate=rate))
    return replace(options, workers=workers or options.workers, shards=shards or options.shards)
