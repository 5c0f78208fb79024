"""Which examples were leased, finished and given back: the promise that none is lost.

The data set is cut into slices (ranges of rows); their order is drawn anew each epoch. A slice is leased
to a worker, and finished when every shard has answered all of its pushes for good. A lease that runs out
returns its slice to the pool. Time is an argument, so the same ledger runs under any clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Slice(NamedTuple):
    """Rows [start, stop) of the data set, to be read from batch `position` on. `number` is its place in
    the list of slices, `rank` that in the epoch's order."""

    epoch: int
    number: int
    rank: int
    start: int
    stop: int
    position: int = 0


@dataclass
class Lease:
    slice: Slice
    worker: int
    until: float


@dataclass
class Audit:
    """Rows, over the whole run: `finished` counts each slice once, `repeated` those that were leased
    again after a lease ran out, `refused` examples whose gradients no shard would take."""

    finished: int = 0
    repeated: int = 0
    refused: int = 0


class Ledger:
    """
    Args:
        slices: (start, stop) of each slice, the same for all epochs.
        epochs: passes over all slices.
        seed: of the orders; the order of epoch e depends on (seed, e) alone.
        lease_seconds: how long a worker may hold a slice without renewing.
    """

    def __init__(self, slices: Sequence[tuple[int, int]], epochs: int, seed: int, lease_seconds: float) -> None:
        self._slices, self._epochs, self._seed = list(slices), epochs, seed
        self.lease_seconds = lease_seconds
        self.leases: dict[tuple[int, int], Lease] = {}
        self._pool: list[Slice] = []
        self._kept: dict[int, Slice] = {}  # worker → the slice that it goes on with after a restore
        self._next_epoch = 0
        self.finished: list[set[int]] = [set() for _ in range(epochs)]
        self.audit = Audit()

    @property
    def rows(self) -> int:
        """Rows in one epoch."""
        return sum(stop - start for start, stop in self._slices)

    @property
    def done(self) -> bool:
        return all(len(f) == len(self._slices) for f in self.finished)

    @property
    def epoch(self) -> int:
        """The first epoch that is not finished; `epochs` at the end."""
        return next((e for e, f in enumerate(self.finished) if len(f) < len(self._slices)), self._epochs)

    @property
    def progress(self) -> float:
        """Share of all rows of all epochs that is finished, from 0 to 1."""
        total = self.rows * self._epochs
        return 1.0 if total == 0 else self.audit.finished / total

    def lease(self, worker: int, now: float) -> Slice | None:
        """The next slice, or None when none is free: all are leased, kept for their holders, or finished."""
        if worker in self._kept:
            return self._lease(self._kept.pop(worker), worker, now)
        if not self._pool and self._next_epoch < self._epochs:
            order = np.random.default_rng([self._seed, self._next_epoch]).permutation(len(self._slices))
            self._pool = [Slice(self._next_epoch, int(i), rank, *self._slices[i]) for rank, i in enumerate(order)]
            self._next_epoch += 1
        if not self._pool:
            return None
        return self._lease(self._pool.pop(0), worker, now)

    def renew(self, worker: int, now: float) -> None:
        for lease in self.leases.values():
            if lease.worker == worker:
                lease.until = now + self.lease_seconds

    def advance(self, worker: int, taken: Slice, position: int) -> None:
        """Records that the worker has done `position` batches of the slice (staleness 0: a snapshot
        at a step boundary goes on from there)."""
        lease = self.leases.get((taken.epoch, taken.number))
        if lease is not None and lease.worker == worker:
            lease.slice = lease.slice._replace(position=position)

    def finish(self, worker: int, taken: Slice, refused: int = 0) -> bool:
        """Every push of the slice was answered for good. False if the worker's lease had run out."""
        lease = self.leases.get((taken.epoch, taken.number))
        if lease is None or lease.worker != worker:
            return False
        del self.leases[taken.epoch, taken.number]
        self.finished[taken.epoch].add(taken.number)
        self.audit.finished += taken.stop - taken.start
        self.audit.refused += refused
        return True

    def release(self, worker: int) -> list[Slice]:
        """The worker is gone: its slices return to the head of the pool, also the one that was kept for it."""
        if worker in self._kept:
            self._pool.insert(0, self._kept.pop(worker))
        gone = [key for key, lease in self.leases.items() if lease.worker == worker]
        return [self._give_back(key) for key in gone]

    def expire(self, now: float) -> set[int]:
        """Returns slices whose lease ran out to the pool; the workers that held them."""
        late = {lease.worker for lease in self.leases.values() if lease.until < now}
        for worker in late:
            self.release(worker)
        return late

    def holders(self) -> set[int]:
        return {lease.worker for lease in self.leases.values()}

    def state(self) -> dict[str, Any]:
        """JSON-ready; what is leased now counts as not begun, but for its position."""
        held = {lease.worker: lease.slice for lease in self.leases.values()} | self._kept
        open_slices = sorted({lease.slice for lease in self.leases.values()} | {*self._kept.values()}, key=_place)
        return {
            "pool": [list(s) for s in [*open_slices, *self._pool]],
            "holders": {str(worker): list(s) for worker, s in sorted(held.items())},
            "next_epoch": self._next_epoch,
            "finished": [sorted(f) for f in self.finished],
            "audit": vars(self.audit) | {},
            "slices": [list(s) for s in self._slices],
        }

    def restore(self, state: dict[str, Any], workers: int = 0) -> None:
        """Goes on from `state()`; slices that were leased then are leased anew, those of the first `workers` to the
        very worker that held them.

        Raises:
            ValueError: the state belongs to another cut of the data.
        """
        if state["slices"] != [list(s) for s in self._slices] or len(state["finished"]) != self._epochs:
            raise ValueError("the snapshot's slices are not those of this run")
        self._kept = {int(w): Slice(*s) for w, s in state["holders"].items() if int(w) < workers}
        self._pool = [s for s in (Slice(*s) for s in state["pool"]) if s not in self._kept.values()]
        self._next_epoch = state["next_epoch"]
        self.finished = [set(f) for f in state["finished"]]
        self.audit = Audit(**state["audit"])
        self.leases = {}

    def _lease(self, taken: Slice, worker: int, now: float) -> Slice:
        self.leases[taken.epoch, taken.number] = Lease(taken, worker, now + self.lease_seconds)
        return taken

    def _give_back(self, key: tuple[int, int]) -> Slice:
        back = self.leases.pop(key).slice
        self._pool.insert(0, back)
        self.audit.repeated += back.stop - back.start
        return back


def _place(taken: Slice) -> tuple[int, int]:
    return taken.epoch, taken.rank


def cut(rows: int, slices: int) -> list[tuple[int, int]]:
    """[0, rows) as at most `slices` ranges that differ by at most one row; none is empty."""
    n = max(1, min(rows, slices))
    return [(rows * i // n, rows * (i + 1) // n) for i in range(n)] if rows else []
