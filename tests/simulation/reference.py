"""The reference model: what was promised (docs/operations.md), checked against what is seen of a simulated run.

`books` has what the shards did; here is what the workers did: which pushes hold a slice's gradients, and who begins
which step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from psdevise.server.coordinator import Begun, Coordinator
from psdevise.server.ledger import Slice
from psdevise.server.shard import ShardState
from psdevise.simulation.worker import SimulatedWorker
from psdevise.worker.effects import Call
from tests.simulation.books import Push, ShardBooks, require


@dataclass
class Doing:
    """What a worker's incarnation has done. `accrued`: batches that no push holds yet; `pushes`: of the slices under
    way, sequence → (its shards, its batches)."""

    accrued: list[tuple[Slice, int]] = field(default_factory=list)
    pushes: dict[int, tuple[frozenset[int], list[tuple[Slice, int]]]] = field(default_factory=dict)
    begun: int | None = None
    pushed: int | None = None
    pulled: bool = False


class Reference(ShardBooks):
    """
    Args:
        rows, epochs: what the ledger has to account for at the end.
        in_flight: bytes of pushes that a worker may have on their way.
    """

    def __init__(self, folder: str, counted: int, bound: int | None, rows: int, epochs: int, in_flight: float) -> None:
        super().__init__(folder, counted, bound)
        self._rows, self._epochs, self.in_flight = rows, epochs, in_flight
        self._doing: dict[tuple[int, int], Doing] = {}

    def resumed(self, number: int, coordinator: Coordinator) -> None:
        super().resumed(number, coordinator)
        self._doing = {}

    # ------------------------------------------------------------------ workers

    def computed(self, worker: SimulatedWorker) -> None:
        doing = self._of(worker)
        doing.accrued.append(worker.open[-1])
        if self._bound is not None:
            require(doing.pulled or len(doing.accrued) > 1, f"worker {worker.rank} computes with old parameters")

    def sent(self, worker: SimulatedWorker, calls: tuple[Call, ...]) -> None:
        doing = self._of(worker)
        pushes = [c for c in calls if c.method == "push"]
        doing.pulled |= any(c.method == "pull" for c in calls)
        if not pushes:
            return
        identity = pushes[0].arguments[1]
        if identity.sequence not in doing.pushes:
            doing.pushes[identity.sequence] = frozenset(c.shard for c in pushes), doing.accrued
            doing.accrued = []
        pending = worker.client.pending
        limit = self.in_flight
        require(len(pending) <= 1 or sum(p.nbytes for p in pending) <= limit, "more bytes in flight than allowed")

    def asked(self, worker: SimulatedWorker, question: str, arguments: tuple[Any, ...], answer: Any) -> None:
        doing = self._of(worker)
        if question == "finish" and answer:
            self._finish(worker, arguments[0])
        elif question == "pushed":
            sequence, (shards, _) = max(doing.pushes.items())
            push = (worker.rank, worker.incarnation, sequence)
            owed = [n for n in shards if (n, push) not in self._answered | self._held_ever]
            require(not owed, f"push {push} counts as in, but shards {owed} do not have it")
            doing.pushed = max(doing.pushed or 0, arguments[0] + 1)
        elif question == "begin" and isinstance(answer, Begun):
            self._begin(worker, answer.step)
            doing.pulled = False
        elif question == "lease" and answer is None:
            doing.pushed = None

    def _finish(self, worker: SimulatedWorker, taken: Slice) -> None:
        """3: every batch of the slice was pushed, and every shard has answered for good."""
        doing = self._of(worker)
        positions = set(range(taken.position))
        record = []
        for sequence, (shards, batches) in doing.pushes.items():
            mine = {p for s, p in batches if (s.epoch, s.number) == (taken.epoch, taken.number)}
            if not mine:
                continue
            positions |= mine
            for shard in shards:
                push = (worker.rank, worker.incarnation, sequence)
                require((shard, push) in self._answered, f"slice {taken} finished, shard {shard} owes {push} an answer")
                record.append((shard, push))
        batches_of = -(-(taken.stop - taken.start) // 2)
        require(positions == set(range(batches_of)), f"slice {taken} finished with batches {sorted(positions)} only")
        self._finished[taken.epoch, taken.number] = record + (self._kept(taken) if taken.position else [])
        self._count("finished")

    def _kept(self, taken: Slice) -> list[tuple[int, Push]]:
        """The pushes of the slice's first batches, made by earlier holders: of each batch every shard has one."""
        made: dict[int, list[tuple[int, Push]]] = {}
        for (rank, incarnation), doing in self._doing.items():
            for sequence, (shards, batches) in doing.pushes.items():
                for s, position in batches:
                    if (s.epoch, s.number) == (taken.epoch, taken.number) and position < taken.position:
                        made.setdefault(position, []).extend((n, (rank, incarnation, sequence)) for n in shards)
        for position, pushes in made.items():
            has = {shard for shard, push in pushes if (shard, push) in self._answered}
            lacks = set(range(self._shards)) - has
            require(not lacks, f"batch {position} of {taken} counts as done, but shards {lacks} lack it")
        return [key for pushes in made.values() for key in pushes if key in self._answered]

    def _begin(self, worker: SimulatedWorker, step: int) -> None:
        """6: no worker begins step t before every live worker's push of step t-k-1 is in."""
        doing = self._of(worker)
        doing.begun = step
        doing.pushed = max(doing.pushed or 0, step)
        if not self._bound:
            return
        assert self.coordinator is not None
        for lease in self.coordinator.ledger.leases.values():
            current = self.coordinator.workers.get(lease.worker)
            other = None if current is None else self._doing.get((lease.worker, current.incarnation))
            if other is not None and other.pushed is not None:
                late = step - other.pushed
                require(late <= self._bound, f"worker {worker.rank} begins step {step}, {late} ahead of {lease.worker}")

    def _of(self, worker: SimulatedWorker) -> Doing:
        key = worker.rank, worker.incarnation
        if key not in self._doing:
            self._new_incarnation(worker.incarnation)
            self._doing[key] = Doing()
            self._newest[worker.rank] = max(worker.incarnation, self._newest.get(worker.rank, 0))
        return self._doing[key]

    # ------------------------------------------------------------------ the end

    def ended(self, audit: dict[str, Any], states: list[ShardState]) -> None:
        """4, and that no example was lost."""
        require(audit["finished"] == self._rows * self._epochs, f"{audit} of {self._rows * self._epochs} rows")
        if self._bound != 0:
            for index, state in enumerate(states):
                self._check_state(self._lives[index], state, "at the end")
