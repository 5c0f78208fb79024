"""Downpour SGD: Algorithm 1 of Dean et al. 2012 (appendix), one generator per worker.

    step = 0; accrued = 0
    loop:
        if step % n_fetch == 0: start an asynchronous fetch of the parameters
        g = gradient(parameters, minibatch)
        accrued += g                      # a sum, never a mean
        parameters -= alpha * g           # the replica also steps by itself
        if step % n_push == 0: start an asynchronous push of accrued; accrued = 0
        step += 1

Fetch and push go on while the next gradient is computed. With a bound on staleness a step (one push)
begins when the coordinator says so, and computes with parameters fetched after that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from psdevise.config import option
from psdevise.errors import ConfigError, Diverged
from psdevise.server.coordinator import WAIT, Begun
from psdevise.server.ledger import Slice
from psdevise.server.protocol import Array, Rows, Turn, Version
from psdevise.worker.client import Client, Fetching
from psdevise.worker.effects import Ask, Effects, NextBatch, Open, Pause, Replaced, Report
from psdevise.worker.local_step import LocalStep
from psdevise.worker.replica import LocalSteps, Replica
from psdevise.worker.task import Task, generator, unique_rows

WAIT_SECONDS = 0.005
SMALL_BYTES = 4_000_000  # of parameters: to update and copy them takes a millisecond or two


@dataclass(frozen=True)
class DownpourOptions:
    n_fetch: int = option(1, "steps between two fetches of the parameters", low=1)
    n_push: int = option(1, "steps whose gradients are summed into one push", low=1)
    local_step: LocalSteps = option(
        "none",
        "how the replica steps between fetches: none (n_fetch = 1 only), sgd at local_rate, or adagrad"
        " with accumulators that come with the parameters",
    )
    local_rate: float = option(0.0, "learning rate of the replica's own steps", low=0.0)
    staleness: Literal["unbounded"] | int = option(
        "unbounded", "how many steps (pushes) a worker may be ahead of the slowest: unbounded, k, or 0"
    )
    overlap: Literal["auto"] | bool = option(
        "auto",
        "fetch for the next step while this one is computed, so without its push (unbounded only); auto: where there"
        " are more than 4 MB of parameters, tables not counted",
    )
    warm_start: int = option(0, "steps that one worker makes alone before the others begin", low=0)
    max_in_flight_mb: float = option(256.0, "pushes that may wait for their answers, in MB", low=1.0)
    deadline: float = option(60.0, "seconds that any wait for a shard may take", low=1.0)
    precision: Literal["fp32", "bf16"] = option("fp32", "autocast of the workers' compute; shards keep fp32")

    def __post_init__(self) -> None:
        if self.n_fetch > 1 and self.local_step == "none":
            raise ConfigError(
                f"n_fetch is {self.n_fetch}, so the replica must step by itself",
                where="local_step",
                mend="set local_step: adagrad, or local_step: sgd with a local_rate",
            )
        if self.local_step == "sgd" and self.local_rate <= 0:
            raise ConfigError("local_step: sgd needs a rate of its own", where="local_rate", mend="set local_rate > 0")
        if self.bound is not None and self.bound < 0:
            raise ConfigError("staleness is unbounded, 0 or a positive number", where="staleness")
        if self.bound == 0 and (self.n_fetch, self.n_push, self.local_step) != (1, 1, "none"):
            raise ConfigError("staleness 0 needs n_fetch = n_push = 1 and no local step", where="staleness")

    @property
    def bound(self) -> int | None:
        return None if self.staleness == "unbounded" else self.staleness

    def fetches_ahead(self, nbytes: int) -> bool:
        """Whether a worker fetches `nbytes` of parameters before its push. It hides what the shard does, and each step
        is computed without the one before; a small model has little to hide."""
        wanted = nbytes > SMALL_BYTES if self.overlap == "auto" else self.overlap
        return wanted and self.bound is None


class Item(NamedTuple):
    """A batch and its place: the `position`-th of its slice."""

    slice: Slice
    position: int
    batch: Any
    last: bool


class Downpour:
    """One worker's run through a phase.

    Args:
        key: seeds of everything random: (seed, phase).
        rate: the shards' base learning rate and eps, which local Adagrad steps repeat.
    """

    def __init__(
        self,
        task: Task,
        replica: Replica,
        client: Client,
        options: DownpourOptions,
        key: tuple[int, int],
        rate: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        self._task, self._replica, self._client, self._options = task, replica, client, options
        self._key = key
        self._local_step = LocalStep(replica, options.local_rate if options.local_step == "sgd" else rate, eps)
        self._accrued_rows: list[dict[str, tuple[Rows, Array]]] = []
        self._accrued_examples = 0
        self._open: Slice | None = None
        self._position = 0
        self._closing: deque[tuple[Slice, int]] = deque()
        self._refused_before = 0
        self._total_slices = max(1, len(task.slices) * task.epochs)

    def run(self) -> Effects[None]:
        """Algorithm 1, until the coordinator has no slice left for this worker.

        Raises:
            Replaced: this worker's lease ran out and another has its rank.
            Diverged: the loss is not finite.
            DeadlineExceeded: a shard did not answer in time.
        """
        task, client, options = self._task, self._client, self._options
        ahead = options.fetches_ahead(4 * task.layout.size)
        steps_itself = options.local_step != "none"
        yield from client.fetch({}, buffers=True)
        task.bind(self._replica)
        fetching: Fetching | None = None
        fetched = False
        step, pace_step = 0, -1
        turn: Turn | None = None
        item = yield from self._next(wait=True)
        while item is not None:
            if options.bound is not None and step % options.n_push == 0:
                pace_step, turn = yield from self._begin(pace_step)
            if (step % options.n_fetch == 0 or task.layout.tables) and not fetched:
                if fetching is None:
                    fetching = yield from self._fetch(item)
                yield from client.finish_fetch(fetching)
                fetching = None
            if steps_itself:
                self._local_step(task.schedule(self._progress(item)))
            upcoming = (yield from self._next(wait=False)) if ahead else None
            pushes = (step + 1) % options.n_push == 0 or item.last
            due = (step + 1) % options.n_fetch == 0 or task.layout.tables
            # A replica that steps by itself fetches after its push: its next parameters are to hold these steps.
            if upcoming is not None and due and not (pushes and steps_itself):
                fetching = yield from self._fetch(upcoming)

            progress = self._progress(item)
            figures = self._compute(item, progress)

            pulled_at = client.versions
            fetched = fetching is not None and not steps_itself
            if fetching is not None and fetched:
                # Before the push, so that the shard applies it while this worker goes on.
                yield from client.finish_fetch(fetching)
                fetching = None
            step += 1
            if pushes:
                if steps_itself and options.bound is None and step % options.n_fetch:
                    self._local_step.keep(task.schedule(progress))
                yield from self._push(progress, pulled_at, turn)
                if options.bound is not None:
                    yield from client.arrived()
                    yield Ask("pushed", (pace_step, item.position + 1))
                    pace_step += 1
                    step = 0
            if item.last:
                self._closing.append((item.slice, client.next_sequence))
            yield from self._collect(wait=options.bound == 0)
            yield from self._report(figures, progress)
            if upcoming is None:
                upcoming = yield from self._next(wait=True)
            item = upcoming
        yield from self._collect(wait=True)

    # ------------------------------------------------------------------ data

    def _next(self, wait: bool) -> Effects[Item | None]:
        """The next batch, from a new slice where the last one has ended. Without `wait`, None also when
        no slice is free just now: what this worker has not finished may be what the others wait for."""
        while True:
            if self._open is None:
                taken = yield Ask("lease")
                if taken is None:
                    return None
                if taken == WAIT:
                    if not wait:
                        return None
                    yield from self._collect(wait=True)
                    yield Pause(WAIT_SECONDS)
                    continue
                self._open, self._position = taken, taken.position
                yield Open(taken)
            found = yield NextBatch()
            current = self._open
            if found is None:  # a slice without a batch: none of its rows is of a class that is trained
                self._open = None
                yield Ask("finish", (current, 0))
                continue
            batch, last = found
            item = Item(current, self._position, batch, last)
            self._position += 1
            if last:
                self._open = None
            return item

    def _progress(self, item: Item) -> float:
        """How far the training is, by the batch's place in the order of slices: the same on any worker."""
        done = item.slice.epoch * len(self._task.slices) + item.slice.rank
        return done / self._total_slices

    def _fetch(self, item: Item) -> Effects[Fetching]:
        """Begins to fetch what `item` is computed with. What a replica that steps by itself has pushed is no longer in
        its sum, and not in the shard before that has applied it: it would lose these steps."""
        if self._options.local_step != "none":
            yield from self._client.settle_all()
        return (yield from self._client.start_fetch(self._task.rows(item.batch)))

    # ------------------------------------------------------------------ compute

    def _compute(self, item: Item, progress: float) -> dict[str, float]:
        replica = self._replica
        rng = generator(*self._key, item.slice.epoch, item.slice.number, item.position, 1)
        replica.open_gradient()
        rows, figures = self._task.gradient(replica, item.batch, rng, progress)
        if not np.isfinite(figures.get("loss", 0.0)):
            raise Diverged("the loss is not finite", mend="lower the learning rate, or raise initial_accumulator")
        replica.close_gradient()
        if rows:
            self._accrued_rows.append(rows)
        self._accrued_examples += int(figures.get("examples", 0))
        return figures

    # ------------------------------------------------------------------ effects

    def _begin(self, step: int) -> Effects[tuple[int, Turn | None]]:
        while True:
            begun = yield Ask("begin", (step,))
            if begun is None:
                raise Replaced("this worker's lease ran out")
            if isinstance(begun, Begun):
                return begun.step, begun.turn
            yield Pause(WAIT_SECONDS)

    def _push(self, progress: float, pulled_at: Mapping[int, Version], turn: Turn | None) -> Effects[None]:
        rows = self._accrued_rows[0] if self._accrued_rows else {}
        for more in self._accrued_rows[1:]:
            for name, (ids, values) in more.items():
                old_ids, old = rows.get(name, (ids[:0], values[:0]))
                rows = rows | {name: unique_rows(np.concatenate([old_ids, ids]), np.concatenate([old, values]))}
        bound, dense = self._replica.bound, self._replica.take_gradient()
        examples, self._accrued_examples = self._accrued_examples, 0
        self._accrued_rows = []
        yield from self._client.push(dense, rows, examples, self._task.schedule(progress), turn, pulled_at, bound)

    def _collect(self, wait: bool) -> Effects[None]:
        """Takes in answers, and finishes the slices whose pushes were all answered for good."""
        if wait:
            yield from self._client.settle_all()
        else:
            yield from self._client.collect()
        while self._closing and self._closing[0][1] <= self._client.oldest:
            done, _ = self._closing.popleft()
            refused = self._client.refused_examples - self._refused_before
            self._refused_before = self._client.refused_examples
            if self._replica.buffers.numel():
                yield from self._client.average()
            yield Ask("finish", (done, refused))

    def _report(self, figures: dict[str, float], progress: float) -> Effects[None]:
        client = self._client
        counters = figures | {
            "steps": 1.0,
            "bytes_pulled": client.bytes_pulled,
            "bytes_pushed": client.bytes_pushed,
        }
        client.bytes_pulled = client.bytes_pushed = 0
        gauges = {"lag": float(client.last_lag), "rate": self._task.schedule(progress)}
        gauges["in_flight_bytes"] = float(sum(p.nbytes for p in client.pending))
        if not (yield Report(counters, gauges)):
            raise Replaced("this worker's lease ran out")


def make_device(gpus: float) -> str:
    """`cuda` if this worker was given a GPU and torch sees it."""
    return "cuda" if gpus > 0 and torch.cuda.is_available() else "cpu"
