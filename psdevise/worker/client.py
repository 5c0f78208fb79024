"""Pull and push over all shards: identities, versions, retries; no thread, no clock.

All calls of one pull or push are issued before any is waited for. A push stays `pending` until every
shard has answered it for good; a shard that was lost or restored gets the same gradient again under the
same identity, so nothing is lost and nothing is applied twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from psdevise.errors import BadGradient, DeadlineExceeded, PsdeviseError, StaleIncarnation, UnknownVersion
from psdevise.server.layout import Layout
from psdevise.server.protocol import Ack, Array, Gradient, Identity, Pulled, Rows, Turn, Version
from psdevise.worker.effects import Ask, Call, Effects, Pause, Poll, Receive, Replaced, Send, ShardLost, Ticket
from psdevise.worker.replica import Replica

RETRY_SECONDS = 0.2


@dataclass
class Pending:
    """A push on its way: what each shard that has not answered for good is to get. `whole`: what it was at first,
    but for what was refused."""

    sequence: int
    parts: dict[int, Gradient]
    pulled_at: dict[int, Version]
    rate: float
    turn: Turn | None
    examples: int
    dense: Array | None
    ticket: Ticket = None
    asked: tuple[int, ...] = ()
    held: set[int] = field(default_factory=set)
    whole: dict[int, Gradient] = field(default_factory=dict)
    refused: bool = False
    lag: int = 0

    @property
    def nbytes(self) -> int:
        return sum(g.nbytes for g in self.parts.values())


@dataclass
class Fetching:
    ticket: Ticket
    calls: tuple[Call, ...]
    rows: dict[int, dict[str, Rows]] = field(default_factory=dict)


class Client:
    """
    Args:
        incarnation: of this worker, from the orchestrator.
        deadline: seconds after which a shard that does not come back ends in DeadlineExceeded.
        max_in_flight: bytes of pushes that may wait for their answers.
    """

    def __init__(
        self,
        layout: Layout,
        replica: Replica,
        worker: int,
        incarnation: int,
        deadline: float,
        max_in_flight: int,
    ) -> None:
        self._layout, self._replica = layout, replica
        self._worker, self._incarnation = worker, incarnation
        self._deadline, self._max_in_flight = deadline, max_in_flight
        self._sequence = 0
        self._versions: dict[int, Version | None] = dict.fromkeys(range(layout.shards))
        self._applied: dict[int, tuple[int, int]] = {}  # shard → its life, and the examples that it had applied
        self.pending: list[Pending] = []
        self.bytes_pulled = 0
        self.bytes_pushed = 0
        self.refused_examples = 0
        self.last_lag = 0

    # ------------------------------------------------------------------ pull

    def start_fetch(self, rows: dict[str, Rows], buffers: bool = False) -> Effects[Fetching]:
        """Asks every shard for what is newer than this worker's copy, and for `rows` of the tables."""
        local: dict[int, dict[str, Rows]] = {s: {} for s in range(self._layout.shards)}
        own: dict[int, dict[str, Rows]] = {s: {} for s in range(self._layout.shards)}
        for name, ids in rows.items():
            for shard, where, numbers in self._layout.deal(ids):
                local[shard][name], own[shard][name] = numbers, ids[where]
        with_sums = self._replica.accumulators is not None
        calls = tuple(
            Call(s, "pull", (local[s] or None, self._versions[s], with_sums, buffers), self._replica.landing(s))
            for s in range(self._layout.shards)
            if self._layout.size or local[s] or self._versions[s] is None
        )
        ticket = yield Send(calls)
        return Fetching(ticket, calls, own)

    def finish_fetch(self, fetching: Fetching) -> Effects[None]:
        """Waits for a fetch and installs it in the replica."""
        replies = yield from self._receive(fetching.ticket, fetching.calls)
        for call, reply in zip(fetching.calls, replies, strict=True):
            if isinstance(reply, PsdeviseError):
                raise reply
            assert isinstance(reply, Pulled)
            landed = call.into is not None and reply.dense is call.into.dense
            self._replica.install(call.shard, reply, fetching.rows[call.shard], landed)
            self._versions[call.shard] = reply.version
            yield from self._tell_of_death(call.shard, reply.version.incarnation)
            self.bytes_pulled += 0 if reply.dense is None else reply.dense.nbytes
            self.bytes_pulled += sum(r.nbytes for r in reply.rows.values())

    def fetch(self, rows: dict[str, Rows], buffers: bool = False) -> Effects[None]:
        fetching = yield from self.start_fetch(rows, buffers)
        yield from self.finish_fetch(fetching)

    # ------------------------------------------------------------------ push

    def push(
        self,
        dense: Array | None,
        rows: dict[str, tuple[Rows, Array]],
        examples: int,
        rate: float,
        turn: Turn | None = None,
        pulled_at: Mapping[int, Version] | None = None,
        bound: float = inf,
    ) -> Effects[None]:
        """Sends a gradient to all shards that it touches; waits only if too many bytes are in flight.

        Args:
            dense: the whole arena's gradient [size]; the client gives it back to the replica once it was answered
                for good, and until then it must not change. None without one.
            rows: table → (global row ids, gradient [n, dim]).
            pulled_at: the `versions` that the gradient was computed with; those of now by default.
            bound: of `dense` (`Gradient`).
        """
        parts: dict[int, Gradient] = {}
        dealt: dict[int, dict[str, tuple[Rows, Array]]] = {s: {} for s in range(self._layout.shards)}
        for name, (ids, gradient) in rows.items():
            for shard, where, numbers in self._layout.deal(ids):
                if len(numbers):
                    dealt[shard][name] = (numbers, np.ascontiguousarray(gradient[where]))
        for shard in range(self._layout.shards):
            own = None if dense is None else dense[slice(*self._layout.range(shard))]
            if dealt[shard] or turn is not None or (own is not None and own.size):
                parts[shard] = Gradient(own, dealt[shard], examples, bound)
        known = self.versions if pulled_at is None else pulled_at
        versions = {s: known[s] for s in parts}
        pending = Pending(self._sequence, parts, versions, rate, turn, examples, dense, whole=dict(parts))
        self._sequence += 1
        while self.pending and sum(p.nbytes for p in self.pending) + pending.nbytes > self._max_in_flight:
            yield from self._settle(self.pending[0])
        self.bytes_pushed += pending.nbytes
        self.pending.append(pending)
        yield from self._issue(pending)

    def collect(self) -> Effects[None]:
        """Takes in the answers that have arrived, without waiting."""
        while self.pending and (yield Poll(self.pending[0].ticket)):
            yield from self._settle(self.pending[0])

    def settle_all(self) -> Effects[None]:
        """Waits until every push was answered for good."""
        while self.pending:
            yield from self._settle(self.pending[0])

    def arrived(self) -> Effects[None]:
        """Waits until every push has reached its shards: answered for good, or held for its turn."""
        for pending in list(self.pending):
            yield from self._settle(pending, or_held=True)

    def average(self) -> Effects[None]:
        """Gives shard 0 this worker's buffers; not answered for, since a later one replaces it."""
        buffers = self._replica.buffers.to("cpu", copy=True).numpy()
        yield Send((Call(0, "average", (self._worker, buffers)),))

    @property
    def versions(self) -> dict[int, Version]:
        """Shard → the version of it that the replica has."""
        return {s: v or Version(0, 0) for s, v in self._versions.items()}

    @property
    def oldest(self) -> int:
        """The lowest sequence that is not answered for good; all below it are."""
        return self.pending[0].sequence if self.pending else self._sequence

    @property
    def next_sequence(self) -> int:
        return self._sequence

    def _issue(self, pending: Pending) -> Effects[None]:
        identity = Identity(self._worker, self._incarnation, pending.sequence, self.oldest)
        calls = tuple(
            Call(s, "push", (g, identity, pending.pulled_at[s], pending.rate, pending.turn))
            for s, g in pending.parts.items()
        )
        pending.asked = tuple(pending.parts)
        pending.ticket = yield Send(calls)

    def _settle(self, pending: Pending, or_held: bool = False) -> Effects[None]:
        """Until every shard has answered (or holds it for its turn): sends again what was lost, refetches where a
        shard is new."""
        waited = 0.0
        while True:
            if pending.asked:
                yield from self._take_replies(pending)
            if not pending.parts:
                break
            if or_held and pending.held.issuperset(pending.parts):
                return
            if waited >= self._deadline:
                shard = next(iter(pending.parts))
                raise DeadlineExceeded(f"shard {shard} did not take a push within {self._deadline:g} s")
            if not pending.asked:
                yield Pause(RETRY_SECONDS if pending.turn is None else RETRY_SECONDS / 20)
                waited += RETRY_SECONDS if pending.turn is None else RETRY_SECONDS / 20
                yield from self._again(pending)
        self.pending.remove(pending)
        if pending.dense is not None:
            self._replica.give_back(pending.dense)
        self.last_lag = pending.lag
        if pending.refused:
            self.refused_examples += pending.examples

    def _take_replies(self, pending: Pending) -> Effects[None]:
        replies = yield Receive(pending.ticket, of="push")
        asked, pending.asked = pending.asked, ()
        for shard, reply in zip(asked, replies, strict=True):
            if isinstance(reply, Ack):
                if reply.outcome == "held":
                    pending.held.add(shard)
                else:
                    self._note(shard, reply)
                    del pending.parts[shard]
                    pending.lag = max(pending.lag, reply.lag)
                    pending.refused |= reply.outcome == "too_stale"
            elif isinstance(reply, BadGradient):
                del pending.parts[shard], pending.whole[shard]
                pending.refused = True
            elif isinstance(reply, UnknownVersion):
                self._versions[shard] = None
            elif isinstance(reply, StaleIncarnation):
                raise Replaced(str(reply))
            elif not isinstance(reply, ShardLost):
                raise reply

    def _note(self, shard: int, ack: Ack) -> None:
        """An answer of a new life must not hide what the one before had applied: that is told at the next fetch."""
        life, examples = self._applied.setdefault(shard, (ack.version.incarnation, 0))
        if life == ack.version.incarnation:
            self._applied[shard] = life, max(examples, ack.examples)

    def _tell_of_death(self, shard: int, life: int) -> Effects[None]:
        """A shard is another life now: tells what the one before had applied when it last answered, for that and what
        was restored is what its death took back."""
        before, examples = self._applied.setdefault(shard, (life, 0))
        if before != life:
            self._applied[shard] = life, 0
            yield Ask("acknowledged", (shard, before, examples, life))

    def _again(self, pending: Pending) -> Effects[None]:
        """Finds out which shards hold the push or have applied it, and sends it anew to the others. In a turn also to
        one that had acknowledged it and was restored since: there other members may be waiting for it."""
        if pending.turn is not None:
            identity = Identity(self._worker, self._incarnation, pending.sequence, self.oldest)
            calls = tuple(Call(s, "answer", (identity,)) for s in pending.whole)
            answers = yield from self._receive((yield Send(calls)), calls)
            outcomes = {c.shard: a.outcome if isinstance(a, Ack) else "" for c, a in zip(calls, answers, strict=True)}
            for call, answer in zip(calls, answers, strict=True):
                if isinstance(answer, Ack):
                    self._note(call.shard, answer)
            pending.parts = {s: g for s, g in pending.whole.items() if outcomes[s] != "applied"}
            pending.held = {s for s in pending.parts if outcomes[s] == "held"}
            if pending.held.issuperset(pending.parts):
                return
        yield from self.fetch({}, buffers=False)
        for shard in pending.parts:
            pending.pulled_at[shard] = self._versions[shard] or Version(0, 0)
        yield from self._issue(pending)

    def _receive(self, ticket: Ticket, calls: tuple[Call, ...]) -> Effects[list[object]]:
        """Replies to calls that may be repeated freely: what a lost shard owed is asked again."""
        replies: list[object] = list((yield Receive(ticket)))
        waited = 0.0
        while lost := [i for i, r in enumerate(replies) if isinstance(r, ShardLost)]:
            if waited >= self._deadline:
                shard = calls[lost[0]].shard
                raise DeadlineExceeded(f"shard {shard} did not come back within {self._deadline:g} s")
            yield Pause(RETRY_SECONDS)
            waited += RETRY_SECONDS
            again = yield Receive((yield Send(tuple(calls[i] for i in lost))))
            for i, reply in zip(lost, again, strict=True):
                replies[i] = reply
        return replies
