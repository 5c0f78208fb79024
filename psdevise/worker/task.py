"""What a phase gives the worker loop: parameters, slices, batches and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from psdevise.server.layout import Layout
from psdevise.server.ledger import Slice
from psdevise.server.protocol import Array, Rows
from psdevise.worker.replica import Replica

Batch = Any
Figures = dict[str, float]
"""Counters of one step, summed over steps: `examples`, `loss` (summed over examples), `words`, …"""
TableGradient = dict[str, tuple[Rows, Array]]
"""table → (row ids without repeats [n], gradient [n, dim])"""


class Task(Protocol):
    """One loop serves language, visual, joint and a user's own model: each is a Task.

    All randomness comes from the generators passed in; they are seeded by (seed, phase, epoch, slice,
    position), so a slice that is repeated on another worker is the same slice.
    """

    layout: Layout
    slices: Sequence[tuple[int, int]]
    epochs: int

    def initial(self) -> Mapping[str, Array]:
        """name → value of every parameter, table and buffer before the first step."""

    def bind(self, replica: Replica) -> None:
        """Makes the worker's model compute with the replica's memory."""

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of rows [start, stop), in an order drawn from `rng`."""

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """The table rows that the batch touches, sorted, without repeats; empty for dense models."""

    def gradient(
        self, replica: Replica, batch: Batch, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        """Fills `replica.gradient` (the dense part, whatever it held before; a bound module's backward does so by
        itself) and returns the tables' part and the step's figures."""

    def schedule(self, progress: float) -> float:
        """The multiplier of the learning rate at `progress` from 0 to 1."""


def generator(*key: int) -> np.random.Generator:
    """The generator of (seed, phase, epoch, slice, position, …)."""
    return np.random.default_rng([k & 0xFFFFFFFF for k in key])


def batches(task: Task, key: tuple[int, int], taken: Slice) -> Iterator[tuple[Batch, bool]]:
    """(batch, whether it is the last) of a slice, from `taken.position` on."""
    rng = generator(*key, taken.epoch, taken.number, 0)
    source = itertools.islice(task.read(taken.start, taken.stop, rng), taken.position, None)
    held = next(source, None)
    while held is not None:
        following = next(source, None)
        yield held, following is None
        held = following


def unique_rows(ids: npt.NDArray[np.int64], values: Array) -> tuple[Rows, Array]:
    """Sums the gradients of repeated rows: ids [n], values [n, dim] → unique ids [m], sums [m, dim]."""
    unique, inverse = np.unique(ids, return_inverse=True)
    summed = np.zeros((len(unique), values.shape[1]), np.float32)
    np.add.at(summed, inverse, values)
    return unique, summed
