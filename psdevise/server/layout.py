"""Which shard holds which parameter: plain data, and arithmetic on it.

Dense parameters stand one after the other in one flat fp32 arena, which is cut into contiguous ranges of
equal bytes; a cut may split a tensor. (Hashing or dealing whole tensors is the classical cause of
unbalanced shards.) Embedding tables are dealt by row, row r to shard r % shards, because vocabularies are
sorted by frequency: contiguous ranges would give the first shard almost all of the load.
Buffers (batch-norm statistics) are not parameters: shard 0 keeps their average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate. `rate` multiplies the optimizer's own; a frozen group is
    held and served but never stepped."""

    rate: float = 1.0
    weight_decay: float = 0.0
    frozen: bool = False


@dataclass(frozen=True)
class Dense:
    name: str
    shape: tuple[int, ...]
    group: str = "default"

    @cached_property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Table:
    """An embedding table [rows, dim] whose gradients touch few rows at a time."""

    name: str
    rows: int
    dim: int


@dataclass(frozen=True)
class Segment:
    """A run of the arena [start, stop) whose parameters belong to one group."""

    group: str
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    dense: tuple[Dense, ...] = ()
    tables: tuple[Table, ...] = ()
    buffers: tuple[Dense, ...] = ()
    groups: Mapping[str, Group] = field(default_factory=lambda: {"default": Group()})
    shards: int = 1

    @cached_property
    def offsets(self) -> dict[str, tuple[int, int]]:
        """name → [start, stop) in the dense arena, in floats."""
        return _offsets(self.dense)

    @cached_property
    def buffer_offsets(self) -> dict[str, tuple[int, int]]:
        return _offsets(self.buffers)

    @cached_property
    def size(self) -> int:
        """Floats in the dense arena."""
        return sum(p.size for p in self.dense)

    @cached_property
    def buffer_size(self) -> int:
        return sum(b.size for b in self.buffers)

    def range(self, shard: int) -> tuple[int, int]:
        """The shard's [start, stop) of the arena; sizes differ by at most one float."""
        return self.size * shard // self.shards, self.size * (shard + 1) // self.shards

    def table_rows(self, table: Table, shard: int) -> int:
        """How many of the table's rows the shard holds (rows shard, shard + shards, …)."""
        return len(range(shard, table.rows, self.shards))

    def segments(self, shard: int) -> list[Segment]:
        """The shard's range as runs of one group each, in local coordinates."""
        start, stop = self.range(shard)
        runs: list[Segment] = []
        for p in self.dense:
            a, b = self.offsets[p.name]
            a, b = max(a, start) - start, min(b, stop) - start
            if a >= b:
                continue
            if runs and runs[-1].group == p.group:
                runs[-1] = Segment(p.group, runs[-1].start, b)
            else:
                runs.append(Segment(p.group, a, b))
        return runs

    def shard_bytes(self, shard: int) -> int:
        """Bytes of parameters on the shard, optimizer state not counted."""
        start, stop = self.range(shard)
        return 4 * (stop - start + sum(self.table_rows(t, shard) * t.dim for t in self.tables))

    def flatten(self, named: Mapping[str, npt.ArrayLike]) -> Array:
        """name → array, as one arena [size]; the inverse of `views`."""
        return _flatten(self.dense, named)

    def flatten_buffers(self, named: Mapping[str, npt.ArrayLike]) -> Array:
        return _flatten(self.buffers, named)

    def views(self, arena: Array) -> dict[str, Array]:
        """Views into `arena` [size], by name and in shape."""
        return {p.name: arena[slice(*self.offsets[p.name])].reshape(p.shape) for p in self.dense}

    def buffer_views(self, arena: Array) -> dict[str, Array]:
        return {b.name: arena[slice(*self.buffer_offsets[b.name])].reshape(b.shape) for b in self.buffers}

    def deal(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.int64]]]:
        """Splits table row ids over the shards: (shard, positions in `rows`, row numbers on the shard)."""
        owner = rows % self.shards
        for shard in range(self.shards):
            where = np.flatnonzero(owner == shard)
            yield shard, where, rows[where] // self.shards

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data, for a snapshot's manifest."""
        return {
            "dense": [[p.name, list(p.shape), p.group] for p in self.dense],
            "tables": [[t.name, t.rows, t.dim] for t in self.tables],
            "buffers": [[b.name, list(b.shape)] for b in self.buffers],
            "groups": {k: [g.rate, g.weight_decay, g.frozen] for k, g in self.groups.items()},
            "shards": self.shards,
        }

    @staticmethod
    def from_plain(data: Mapping[str, Any]) -> Layout:
        return Layout(
            dense=tuple(Dense(n, tuple(s), g) for n, s, g in data["dense"]),
            tables=tuple(Table(n, r, d) for n, r, d in data["tables"]),
            buffers=tuple(Dense(n, tuple(s)) for n, s in data["buffers"]),
            groups={k: Group(*v) for k, v in data["groups"].items()},
            shards=data["shards"],
        )


def _offsets(parts: tuple[Dense, ...]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([0, *(p.size for p in parts)]).tolist()
    return {p.name: (a, b) for p, a, b in zip(parts, ends[:-1], ends[1:], strict=True)}


def _flatten(parts: tuple[Dense, ...], named: Mapping[str, npt.ArrayLike]) -> Array:
    if not parts:
        return np.zeros(0, np.float32)
    return np.concatenate([np.asarray(named[p.name], np.float32).reshape(-1) for p in parts])
