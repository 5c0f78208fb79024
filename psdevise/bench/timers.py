"""Tasks whose compute is a wait, as of an accelerator that leaves the CPU free."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from psdevise.bench.gate import Gate
from psdevise.bench.tasks import FIRST, LAST, MARK, Batch
from psdevise.server.layout import Dense, Layout
from psdevise.server.protocol import Array, Rows
from psdevise.worker.module import ModuleTask, of_mean
from psdevise.worker.replica import Replica
from psdevise.worker.task import Figures, TableGradient

BATCH, SLICE_BATCHES = 1, 40
RECORD = struct.Struct("<qd")


class TimerTask:
    """A step waits for `gate.setting` microseconds; its gradient is 1 everywhere.

    Args:
        megabytes: of float32 parameters.
        torn: whether a pull must be of one version (one shard).
    """

    epochs = 400

    def __init__(self, megabytes: float, gate: Gate, torn: bool) -> None:
        size = max(1, int(megabytes * 1e6 / 4) - 2 * MARK)
        self.layout = Layout(dense=(Dense(FIRST, (MARK,)), Dense("body", (size,)), Dense(LAST, (MARK,))))
        self.slices: Sequence[tuple[int, int]] = [(i * SLICE_BATCHES, (i + 1) * SLICE_BATCHES) for i in range(20)]
        self._gate, self._torn = gate, torn

    def initial(self) -> Mapping[str, Array]:
        return {part.name: np.zeros(part.shape, np.float32) for part in self.layout.dense}

    def bind(self, replica: Replica) -> None:
        """The replica's own memory is all there is."""

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[int]:
        for row in range(start, stop):
            if self._gate.finished and row > start:
                return
            yield row

    def rows(self, batch: int) -> dict[str, Rows]:
        return {}

    def gradient(
        self, replica: Replica, batch: int, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        arena = replica.arena
        self._gate.enter(wrong=int(self._torn and float(arena[0]) != float(arena[-MARK])))
        end = time.monotonic() + self._gate.setting * 1e-6
        self._gate.count()
        if float(replica.gradient[-1]) != 1.0:  # memory that comes back still holds what it held
            replica.gradient.fill_(1.0)
        time.sleep(max(0.0, end - time.monotonic()))
        return {}, {"examples": float(BATCH)}

    def schedule(self, progress: float) -> float:
        return 1.0


def losses_of(path: str) -> list[tuple[int, float]]:
    """(nanoseconds of the monotonic clock, loss) of all workers' steps so far, in the order of their ends."""
    with open(path, "rb") as f:
        data = f.read()
    return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))


def learning_task(gate: Gate, log: str, seconds: float, slow_seconds: float, slow: int, seed: int) -> ModuleTask:
    """A small classifier on pictures drawn anew for every batch, so that a batch's loss is a held-out loss; a step
    takes `seconds`, those of the first `slow` workers `slow_seconds`, and appends its loss to `log`."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    teacher = torch.randn(64, 10, generator=torch.Generator().manual_seed(seed + 1))
    ranks: list[int] = []

    def loss(module: nn.Module, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, Figures]:
        if not ranks:
            ranks.append(gate.claim())
        gate.enter()
        begin = time.monotonic()
        value = nn.functional.cross_entropy(module(batch[0]), batch[1])
        time.sleep(max(0.0, begin + (slow_seconds if ranks[0] < slow else seconds) - time.monotonic()))
        gate.count()
        write_step(log, float(value.detach()))
        return of_mean(value, len(batch[1]))

    def read(start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        drawn = torch.Generator().manual_seed(int(rng.integers(2**31)))
        for _ in range(start, stop):
            if gate.finished:
                return
            x = torch.randn(32, 64, generator=drawn)
            yield x, (x @ teacher).argmax(1)

    slices = [(i * SLICE_BATCHES, (i + 1) * SLICE_BATCHES) for i in range(20)]
    return ModuleTask(module, loss, read, slices, 400)


def write_step(path: str, loss: float) -> None:
    """Appends a step's end and its loss. One write of a few bytes at a file's end is whole, whoever else writes."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, RECORD.pack(time.monotonic_ns(), loss))
    finally:
        os.close(fd)
