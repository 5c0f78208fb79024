"""A parameter-server shard: a synchronous state machine that knows no model, no thread and no clock.

It holds one range of the dense arena, its rows of the tables, the optimizer's state, and the memory of
which pushes it has applied. Wrapped as a Ray actor by `psdevise.runtime`, and used as it is in one process.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from psdevise.config import option
from psdevise.errors import BadGradient, StaleIncarnation, UnknownVersion
from psdevise.server.check import problem_of
from psdevise.server.dense import dense_optimizer
from psdevise.server.held import HeldPushes, mean
from psdevise.server.layout import Layout
from psdevise.server.memory import Memory
from psdevise.server.optimizer import OptimizerOptions, TableOptimizer, all_finite
from psdevise.server.protocol import Ack, Array, Gradient, Identity, Pulled, Rows, Turn, Version
from psdevise.server.senders import Answered, Poisoned

# Arrays that come through shared memory are read-only; the optimizer only reads them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


@dataclass(frozen=True)
class LagOptions:
    on_lag: Literal["apply", "scale", "refuse"] = option(
        "apply", "what a push with lag meets: apply, scale (by 1/(1+lag)), refuse (beyond max_lag)"
    )
    max_lag: int = option(1000, "refuse: updates since the sender's fetch from which on a push is refused", low=0)


@dataclass(frozen=True)
class ShardState:
    """All that a shard is: arrays by name, and plain data. `answered` maps a worker to
    (incarnation, floor, sequences above it); `examples` were applied so far."""

    tensors: dict[str, Array]
    scalars: dict[str, float]
    version: Version
    answered: dict[int, tuple[int, int, tuple[int, ...]]]
    examples: int = 0


class Shard:
    """
    Args:
        index: which of `layout.shards` this is.
        incarnation: handed out by the orchestrator; no two lives of a shard share one.
        state: parameters and, from a snapshot, optimizer state and answered pushes; zeros without.
        memory: where arena and accumulators lie.
    """

    def __init__(
        self,
        layout: Layout,
        index: int,
        optimizer: OptimizerOptions,
        incarnation: int,
        state: ShardState | None = None,
        lag: LagOptions | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.layout, self.index = layout, index
        self._lag = lag or LagOptions()
        self._memory = memory or Memory()
        start, stop = layout.range(index)
        self._memory.begin()
        self._arena = self._memory.zeros(stop - start)
        self._sums = self._memory.zeros(stop - start)
        self._buffers = np.zeros(layout.buffer_size if index == 0 else 0, np.float32)
        self._buffers_of: dict[int, Array] = {}
        self._tables = {
            t.name: TableOptimizer(np.zeros((layout.table_rows(t, index), t.dim), np.float32), optimizer)
            for t in layout.tables
        }
        arena, sums = torch.from_numpy(self._arena), torch.from_numpy(self._sums)
        self._dense = dense_optimizer(arena, sums, layout, index, optimizer)
        self._answered: dict[int, Answered] = {}
        self._held = HeldPushes()
        self._admitted: dict[int, int] = {}  # worker → incarnation; empty where a host admits nobody by name
        self.examples = 0
        self.poisoned: dict[int, Poisoned] = {}
        self.version = Version(incarnation, 0)
        self.counts: Counter[str] = Counter()
        self.lags: Counter[int] = Counter()
        if state is not None:
            self._load(state)
        self._memory.end(self.version)

    # ------------------------------------------------------------------ reading

    def pull(
        self,
        rows: dict[str, Rows] | None = None,
        newer_than: Version | None = None,
        accumulators: bool = False,
        buffers: bool = False,
        into: dict[str, Array] | None = None,
    ) -> Pulled:
        """The dense range unless the caller has this version already, and the asked rows of each table.

        The arrays are views of the shard's own memory: a host copies or serialises them before it lets
        the next call in.

        Args:
            into: table → float32 [rows, dim], where its rows are put instead of memory of their own.
        """
        fresh = newer_than != self.version
        pulled_rows = {name: self._tables[name].take(ids, (into or {}).get(name)) for name, ids in (rows or {}).items()}
        row_sums: dict[str, Array] = {}
        if accumulators:
            for name, ids in (rows or {}).items():
                sums = self._tables[name].sums
                if sums is not None:
                    row_sums[name] = sums[ids]
        return Pulled(
            version=self.version,
            dense=self._arena if fresh else None,
            rows=pulled_rows,
            accumulators=self._sums if accumulators and fresh else None,
            row_accumulators=row_sums,
            buffers=self._buffers if buffers and self.index == 0 else None,
        )

    # ------------------------------------------------------------------ writing

    def push(
        self,
        gradient: Gradient,
        identity: Identity,
        pulled_at: Version,
        rate: float = 1.0,
        turn: Turn | None = None,
    ) -> Ack:
        """Applies a gradient once, at `rate` times the configured learning rate.

        Raises:
            StaleIncarnation: the sender has been replaced by a later incarnation, or was never admitted.
            UnknownVersion: `pulled_at` is of another incarnation of this shard; nothing is recorded.
            BadGradient: wrong shape, dtype, rows, or not finite; counted, and never applied.
        """
        answered = self._admit(identity)
        if identity.sequence in answered:
            self.counts["repeated"] += 1
            return Ack(self.version, 0, "repeated", self.examples)
        if pulled_at.incarnation != self.version.incarnation or pulled_at.counter > self.version.counter:
            self.counts["unknown_version"] += 1
            raise UnknownVersion(
                f"computed against {tuple(pulled_at)}, this shard is at {tuple(self.version)}",
                where=f"shard {self.index}",
            )
        try:
            self._check(gradient, identity, rate)
        except BadGradient:
            if turn is not None:
                self._held.go_on_without(identity.worker, turn)
                self._complete()
            raise
        lag = self.version.counter - pulled_at.counter
        if turn is not None:
            return self._hold(gradient, identity, rate, turn)
        self.lags[lag] += 1
        if self._lag.on_lag == "refuse" and lag > self._lag.max_lag:
            answered.add(identity)
            self.counts["too_stale"] += 1
            return Ack(self.version, lag, "too_stale", self.examples)
        if self._lag.on_lag == "scale":
            rate /= 1 + lag
        self._apply(gradient, rate)
        answered.add(identity)
        self.counts["applied"] += 1
        return Ack(self.version, lag, "applied", self.examples)

    def admit(self, worker: int, incarnation: int) -> None:
        """From now on other incarnations of this worker are refused, and workers that were never admitted."""
        self._admitted[worker] = incarnation
        known = self._answered.get(worker)
        if known is None or known.incarnation < incarnation:
            self._answered[worker] = Answered(incarnation)
            self._held.forget(worker)

    def answer(self, identity: Identity) -> Ack | None:
        """What became of a held push: `applied` or `held`, or None if this shard does not know it (it
        was restored since) and it must be sent again."""
        answered = self._answered.get(identity.worker)
        known = answered is not None and answered.incarnation == identity.incarnation
        if known and answered is not None and identity.sequence in answered:
            return Ack(self.version, 0, "applied", self.examples)
        return Ack(self.version, 0, "held") if self._held.holds(identity) else None

    def amend(self, turn: Turn) -> None:
        """Some members of the step under way will not send: goes on with those that are left."""
        self._held.amend(turn)
        self._complete()

    def average(self, worker: int, buffers: Array) -> None:
        """Takes a worker's buffers (batch-norm statistics); those served are the mean of each worker's
        latest. Only shard 0 keeps buffers."""
        if buffers.shape != self._buffers.shape or not all_finite(buffers):
            self.counts["bad_buffers"] += 1
            return
        self._buffers_of[worker] = buffers.copy()
        np.mean(list(self._buffers_of.values()), axis=0, out=self._buffers)

    # ------------------------------------------------------------------ state

    def snapshot(self, room: dict[str, Array] | None = None) -> ShardState:
        """A copy of everything; what is held for a turn is its sender's and not part of it.

        Args:
            room: float32 memory to copy into, by name (`shapes`).
        """
        tensors: dict[str, Array] = {}
        live, scalars = self._live()
        for name, array in live.items():
            into = (room or {}).get(name)
            if into is None or into.shape != array.shape:
                into = np.empty_like(array)
            np.copyto(into, array)
            tensors[name] = into
        answered = {w: (a.incarnation, a.floor, tuple(sorted(a.above))) for w, a in self._answered.items()}
        return ShardState(tensors, scalars, self.version, answered, self.examples)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays of a snapshot, by name."""
        return {name: array.shape for name, array in self._live()[0].items()}

    def _live(self) -> tuple[dict[str, Array], dict[str, float]]:
        """All arrays, not copied, and the optimizer's scalars."""
        tensors = {"dense": self._arena, "buffers": self._buffers}
        sums, scalars = self._dense.state()
        tensors |= {f"optimizer.{k}": v for k, v in sums.items()}
        for name, table in self._tables.items():
            tensors[f"table.{name}"] = table.values
            if table.sums is not None:
                tensors[f"sums.{name}"] = table.sums
        return tensors, scalars

    def stats(self) -> dict[str, Any]:
        return {
            "shard": self.index,
            "version": tuple(self.version),
            "counts": dict(self.counts),
            "lags": dict(self.lags),
            "bytes": 2 * self._arena.nbytes + sum(t.nbytes for t in self._tables.values()),
            "examples": self.examples,
            "poisoned": {w: (p.incarnation, p.count, p.problem) for w, p in self.poisoned.items()},
        }

    def accumulator_norm(self) -> float:
        """The Euclidean norm of Adagrad's sums of squares, of the arena and the tables; one pass over them."""
        sums = [self._sums, *(t.sums for t in self._tables.values() if t.sums is not None)]
        return float(np.sqrt(sum(float(np.vdot(s, s)) for s in sums)))

    def _load(self, state: ShardState) -> None:
        tensors = state.tensors
        self._arena[:] = tensors["dense"]
        if self.index == 0:
            self._buffers[:] = tensors["buffers"]
        sums = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
        self._dense.load(sums, state.scalars)
        for name, table in self._tables.items():
            table.values[:] = tensors[f"table.{name}"]
            saved = tensors.get(f"sums.{name}")
            if table.sums is not None and saved is not None:
                table.sums[:] = saved
        self._answered = {w: Answered(i, f, set(above)) for w, (i, f, above) in state.answered.items()}
        self.examples = state.examples
        self.version = Version(self.version.incarnation, state.version.counter)

    def _admit(self, identity: Identity) -> Answered:
        if self._admitted and identity.incarnation > self._admitted.get(identity.worker, -1):
            self.counts["stale_incarnation"] += 1
            raise StaleIncarnation(
                f"worker {identity.worker}, incarnation {identity.incarnation}, is not known here",
                where=f"shard {self.index}",
            )
        answered = self._answered.get(identity.worker)
        if answered is None or answered.incarnation < identity.incarnation:
            answered = self._answered[identity.worker] = Answered(identity.incarnation)
        if answered.incarnation > identity.incarnation:
            self.counts["stale_incarnation"] += 1
            raise StaleIncarnation(
                f"worker {identity.worker}, incarnation {identity.incarnation}, was replaced by"
                f" incarnation {answered.incarnation}",
                where=f"shard {self.index}",
            )
        return answered

    def _check(self, gradient: Gradient, identity: Identity, rate: float) -> None:
        tables = {name: table.values.shape for name, table in self._tables.items()}
        problem = problem_of(gradient, self._arena.shape, tables)
        if not 0 <= rate < float("inf"):
            problem = f"{rate} is no learning rate"
        if problem:
            self.counts["bad_gradient"] += 1
            known = self.poisoned.get(identity.worker)
            count = known.count if known is not None and known.incarnation == identity.incarnation else 0
            self.poisoned[identity.worker] = Poisoned(identity.incarnation, count + 1, problem)
            raise BadGradient(problem, where=f"shard {self.index}, push of worker {identity.worker}")

    def _apply(self, gradient: Gradient, rate: float) -> None:
        self._memory.begin()
        if gradient.dense is not None:
            self._dense.step(torch.from_numpy(gradient.dense), rate)
        for name, (ids, values) in gradient.rows.items():
            self._tables[name].step(ids, values, rate)
        self.examples += gradient.examples
        self.version = Version(self.version.incarnation, self.version.counter + 1)
        self._memory.end(self.version)

    def _hold(self, gradient: Gradient, identity: Identity, rate: float, turn: Turn) -> Ack:
        self._held.add((identity, gradient, rate), turn)
        self._complete()
        done = identity.sequence in self._answered[identity.worker]
        return Ack(self.version, 0, "applied" if done else "held", self.examples)

    def _complete(self) -> None:
        """Makes the turn's one update, the mean in worker order, once all members' pushes are in."""
        pushes = self._held.take()
        if not pushes:
            return
        self._apply(mean([gradient for _, gradient, _ in pushes]), pushes[0][2])
        for identity, _, _ in pushes:
            self._answered[identity.worker].add(identity)
        self.counts["applied"] += len(pushes)
        self.lags[0] += len(pushes)
