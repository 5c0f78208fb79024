"""The shards' half of the reference model (`reference`): what each life of each shard has applied, answered and saved.

Books of its own, in sets of (worker, incarnation, sequence): nothing is read from the product but what it answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from psdevise import store
from psdevise.errors import BadGradient
from psdevise.server import snapshot
from psdevise.server.coordinator import Coordinator
from psdevise.server.protocol import Ack, Identity, Pulled, Turn, Version
from psdevise.server.shard import ShardState
from psdevise.simulation.network import ShardLife
from psdevise.simulation.witness import Witness
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


class ShardBooks(Witness):
    """
    Args:
        counted: how many floats of the arena count applications (the first ones).
        bound: the staleness bound; 0 averages gradients.
    """

    def __init__(self, folder: str, counted: int, bound: int | None) -> None:
        self._folder, self._counted, self._bound = folder, counted, bound
        self._books: dict[int, Books] = {}
        self._lives: dict[int, ShardLife] = {}
        self._held: dict[int, dict[int, Identity]] = {}
        self._turns: dict[int, Turn] = {}
        self._saved: dict[int, Saved] = {}
        self._copies: dict[int, dict[int, Books]] = {}
        self.contents: dict[tuple[int, Version], bytes] = {}
        self._incarnations: set[int] = set()
        self._newest: dict[int, int] = {}  # worker → incarnation
        self._shards = 0
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
        self._newest, self._finished = {}, {}
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
        newest = self._newest.get(push[0], push[1])
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

    def _new_incarnation(self, incarnation: int) -> None:
        require(incarnation not in self._incarnations, f"incarnation {incarnation} was handed out twice")
        self._incarnations.add(incarnation)

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1
