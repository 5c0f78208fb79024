"""The reference model: what was promised (docs/operations.md), checked against what is seen of a simulated run.

It keeps books of its own, in sets of (worker, incarnation, sequence): what each life of each shard has applied, what
its snapshots hold, which pushes hold a slice's gradients. Nothing here is read from the product but what it answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from psdevise import store
from psdevise.errors import BadGradient
from psdevise.server import snapshot
from psdevise.server.coordinator import Begun, Coordinator
from psdevise.server.ledger import Slice
from psdevise.server.protocol import Ack, Identity, Pulled, Turn, Version
from psdevise.server.shard import ShardState
from psdevise.simulation.network import ShardLife
from psdevise.simulation.witness import Witness
from psdevise.simulation.worker import SimulatedWorker
from psdevise.worker.effects import Call

Push = tuple[int, int, int]


class Violation(AssertionError):
    """A promise was broken."""


def require(holds: bool, promise: str) -> None:
    if not holds:
        raise Violation(promise)


@dataclass
class Books:
    """What one life of a shard has applied, also in the lives that it was restored from; `rows` counts, per float
    of its range, how often."""

    rows: np.ndarray[Any, np.dtype[np.float32]]
    applied: set[Push] = field(default_factory=set)

    def copy(self) -> Books:
        return Books(self.rows.copy(), set(self.applied))


@dataclass
class Saved:
    books: dict[int, Books]
    finished: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Doing:
    """What a worker's incarnation has done. `accrued`: batches that no push holds yet; `pushes`: of the slices under
    way, sequence → (its shards, its batches)."""

    accrued: list[tuple[Slice, int]] = field(default_factory=list)
    pushes: dict[int, tuple[frozenset[int], list[tuple[Slice, int]]]] = field(default_factory=dict)
    begun: int | None = None
    pushed: int | None = None
    pulled: bool = False


class Reference(Witness):
    """
    Args:
        counted: how many floats of the arena count applications (the first ones).
        rows, epochs: what the ledger has to account for at the end.
        in_flight: bytes of pushes that a worker may have on their way.
    """

    def __init__(self, folder: str, counted: int, bound: int | None, rows: int, epochs: int, in_flight: float) -> None:
        self._folder, self._counted, self._bound = folder, counted, bound
        self._rows, self._epochs, self.in_flight = rows, epochs, in_flight
        self._books: dict[int, Books] = {}
        self._lives: dict[int, ShardLife] = {}
        self._held: dict[int, dict[int, Identity]] = {}
        self._turns: dict[int, Turn] = {}
        self._saved: dict[int, Saved] = {}
        self._copies: dict[int, dict[int, Books]] = {}
        self.contents: dict[tuple[int, Version], bytes] = {}
        self._incarnations: set[int] = set()
        self._shards = 0
        self._doing: dict[tuple[int, int], Doing] = {}
        self._answered: set[tuple[int, Push]] = set()  # (shard, push) that was answered for good, in any life
        self._held_ever: set[tuple[int, Push]] = set()
        self._refused: set[tuple[int, Push]] = set()
        self._taken_back: set[tuple[int, Push]] = set()
        self._finished: dict[tuple[int, int], list[tuple[int, Push]]] = {}
        self.coordinator: Coordinator | None = None
        self.seen: dict[str, int] = {}

    # ------------------------------------------------------------------ lives of shards

    def resumed(self, number: int, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._books, self._lives, self._held, self._turns = {}, {}, {}, {}
        self._doing, self._finished = {}, {}
        self._answered, self._refused, self._taken_back = set(), set(), set()
        self._copies = {}

    def restored(self, life: ShardLife, number: int, shards: int) -> None:
        """2: a shard's state is that of the snapshot, with all that was acknowledged before it."""
        self._new_incarnation(life.incarnation)
        self._shards = shards
        index, shard = life.index, life.shard
        start, stop = shard.layout.range(index)
        saved = self._saved.get(number)
        if saved is None:
            require(number == 0, f"snapshot {number} was never committed")
            books = Books(np.zeros(stop - start, np.float32))
        elif len(saved.books) == shards:
            books = saved.books[index].copy()
        else:
            whole = np.concatenate([b.rows for _, b in sorted(saved.books.items())])
            books = Books(whole[start:stop].copy())
        before = self._books.get(index)
        if before is not None:
            self._count("shard restored")
            gone = before.applied - books.applied
            self._taken_back |= {(index, push) for push in gone}
        self._books[index], self._lives[index] = books, life
        self._held[index] = {}
        self._check_state(life, shard.snapshot(), "restored")

    def copied(self, life: ShardLife, number: int, state: ShardState) -> None:
        self._check_state(life, state, "to be written")
        self._copies.setdefault(number, {})[life.index] = self._books[life.index].copy()

    def committed(self, number: int) -> None:
        """3, 4: what the ledger calls finished is in the shards; the audit adds up."""
        self._count("snapshot")
        books = self._copies.pop(number)
        ledger = store.read_json(snapshot.manifest_path(self._folder, number))["coordinator"]["ledger"]
        finished = {(epoch, n) for epoch, numbers in enumerate(ledger["finished"]) for n in numbers}
        for key in finished:
            for shard, push in self._finished.get(key, ()):
                known = push in books[shard].applied or (shard, push) in self._refused | self._taken_back
                require(known, f"snapshot {number} calls slice {key} finished, but shard {shard} lacks its push {push}")
        sizes = [stop - start for start, stop in ledger["slices"]]
        total = sum(sizes[n] for _, n in finished)
        require(ledger["audit"]["finished"] == total, f"audit {ledger['audit']} but {total} rows are finished")
        pool = {(s[0], s[1]) for s in ledger["pool"]}
        require(len(pool) == len(ledger["pool"]) and not pool & finished, "a slice is in the pool twice, or finished")
        begun = {(e, n) for e in range(ledger["next_epoch"]) for n in range(len(sizes))}
        require(pool | finished == begun, f"slices {begun - pool - finished} are nowhere")
        self._saved[number] = Saved(books, finished)

    def _check_state(self, life: ShardLife, state: ShardState, what: str) -> None:
        if self._bound == 0:
            return  # averaged gradients are no whole numbers; equality with an undisturbed run is the check
        start, stop = life.shard.layout.range(life.index)
        n = max(0, min(stop, self._counted) - start)
        sums = state.tensors.get("optimizer.sum", np.ones(n, np.float32))
        same = np.array_equal(sums[:n], 1 + self._books[life.index].rows[:n])
        require(same, f"shard {life.index}, {what}: its accumulators are not those of the pushes that it has applied")

    # ------------------------------------------------------------------ calls

    def served(self, life: ShardLife, call: Call, reply: Any, before: Version) -> None:
        if call.method == "pull" and isinstance(reply, Pulled):
            self._check_version(life, reply, call.arguments[1])
        elif call.method == "push":
            gradient, identity, _, _, turn = call.arguments
            push = (identity.worker, identity.incarnation, identity.sequence)
            moved = life.shard.version != before
            if isinstance(reply, BadGradient) or (isinstance(reply, Ack) and reply.outcome == "too_stale"):
                self._refused.add((life.index, push))
                self._answered.add((life.index, push))
            if isinstance(reply, BadGradient) and turn is not None:
                self._without(life, identity.worker, turn, moved)  # the others of its turn go on
            elif not isinstance(reply, Ack):
                require(not moved, "a push that was refused moved the version")
            elif turn is not None:
                self._in_turn(life, identity, turn, moved, reply)
            elif reply.outcome == "applied":
                require(moved, "an applied push did not move the version")
                self._apply(life, push, gradient.dense)
            else:
                require(not moved, f"a push that was {reply.outcome} moved the version")
                self._count(reply.outcome)
                known = push in self._books[life.index].applied or (life.index, push) in self._refused
                require(known or reply.outcome != "repeated", f"shard {life.index} never applied {push}")
                self._answered.add((life.index, push))

    def amended(self, life: ShardLife, turn: Turn, before: Version) -> None:
        held = self._held[life.index]
        for worker in [w for w in held if w not in turn.members]:
            del held[worker]
        if life.shard.version != before:
            self._complete(life)

    def _enter(self, life: ShardLife, turn: Turn) -> dict[int, Identity]:
        last = self._turns.get(life.index)
        if last is None or turn.step > last.step:
            self._held[life.index] = {}
            self._turns[life.index] = turn
        return self._held[life.index]

    def _without(self, life: ShardLife, worker: int, turn: Turn, moved: bool) -> None:
        self._enter(life, turn).pop(worker, None)
        if moved:
            self._complete(life)

    def _in_turn(self, life: ShardLife, identity: Identity, turn: Turn, moved: bool, reply: Ack) -> None:
        if reply.outcome == "repeated":
            return
        held = self._enter(life, turn)
        held[identity.worker] = identity
        self._held_ever.add((life.index, (identity.worker, identity.incarnation, identity.sequence)))
        if moved:
            self._complete(life)

    def _complete(self, life: ShardLife) -> None:
        for identity in self._held[life.index].values():
            self._apply(life, (identity.worker, identity.incarnation, identity.sequence), None)
        self._held[life.index] = {}

    def _apply(self, life: ShardLife, push: Push, dense: Any) -> None:
        """1: at most once."""
        books = self._books[life.index]
        require(push not in books.applied, f"shard {life.index} applied push {push} twice")
        newest = max((i for w, i in self._doing if w == push[0]), default=push[1])
        latest = life.shard._answered[push[0]].incarnation
        require(push[1] >= min(latest, newest), f"shard {life.index} applied a push of a replaced worker: {push}")
        books.applied.add(push)
        self._answered.add((life.index, push))
        self._taken_back.discard((life.index, push))
        if dense is not None:
            books.rows += dense * dense
        self._content(life, life.shard.version)
        self._count("applied")

    def _check_version(self, life: ShardLife, reply: Pulled, newer_than: Version | None) -> None:
        """5: a version names one content, for ever."""
        self._content(life, reply.version)
        if reply.dense is None and newer_than is not None:
            known = self.contents.get((life.index, newer_than))
            require(known == life.shard._arena.tobytes(), f"shard {life.index}: {newer_than} is not what it was")

    def _content(self, life: ShardLife, version: Version) -> None:
        now = life.shard._arena.tobytes()
        known = self.contents.setdefault((life.index, version), now)
        require(known == now, f"shard {life.index}: version {tuple(version)} was used for two contents")

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
        return self._doing[key]

    # ------------------------------------------------------------------ the end

    def ended(self, audit: dict[str, Any], states: list[ShardState]) -> None:
        """4, and that no example was lost."""
        require(audit["finished"] == self._rows * self._epochs, f"{audit} of {self._rows * self._epochs} rows")
        if self._bound != 0:
            for index, state in enumerate(states):
                self._check_state(self._lives[index], state, "at the end")

    def _new_incarnation(self, incarnation: int) -> None:
        require(incarnation not in self._incarnations, f"incarnation {incarnation} was handed out twice")
        self._incarnations.add(incarnation)

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1
