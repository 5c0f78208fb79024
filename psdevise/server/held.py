"""Staleness 0: the pushes of a step wait here until those of all its members are in, and become one update."""

from __future__ import annotations

import numpy as np

from psdevise.server.protocol import Array, Gradient, Identity, Rows, Turn

Push = tuple[Identity, Gradient, float]
"""A gradient, whose it is, and the multiplier of its rate."""


class HeldPushes:
    """What one shard holds of the step under way."""

    def __init__(self) -> None:
        self._pushes: dict[int, Push] = {}
        self._turn: Turn | None = None

    def add(self, push: Push, turn: Turn) -> None:
        """Keeps a copy, unless its sender was given up and this comes late."""
        identity, gradient, rate = push
        if identity.worker in self._enter(turn).members:
            dense = None if gradient.dense is None else gradient.dense.copy()
            rows = {name: (ids.copy(), values.copy()) for name, (ids, values) in gradient.rows.items()}
            kept = Gradient(dense, rows, gradient.examples)
            self._pushes[identity.worker] = identity, kept, rate

    def amend(self, turn: Turn) -> None:
        """Some members of the step will not send. It may come before the first push of its step, which still names
        the old ones."""
        if self._turn is None or self._turn.step <= turn.step:
            self._turn = turn
            self._pushes = {w: push for w, push in self._pushes.items() if w in turn.members}

    def go_on_without(self, worker: int, turn: Turn) -> None:
        """A refused push counts as in: the others of its turn do not wait for it."""
        members = tuple(w for w in self._enter(turn).members if w != worker)
        self.amend(Turn(turn.step, members))

    def forget(self, worker: int) -> None:
        self._pushes.pop(worker, None)

    def holds(self, identity: Identity) -> bool:
        push = self._pushes.get(identity.worker)
        return push is not None and push[0].sequence == identity.sequence

    def take(self) -> list[Push]:
        """The turn's pushes in worker order once all its members' are in, and nothing before; they are its no more."""
        if self._turn is None or set(self._pushes) != set(self._turn.members):
            return []
        taken = [self._pushes[worker] for worker in sorted(self._pushes)]
        self._pushes = {}
        return taken

    def _enter(self, turn: Turn) -> Turn:
        """The turn under way, now that a push of `turn` is here."""
        if self._turn is None or turn.step > self._turn.step:
            self._turn, self._pushes = turn, {}
        return self._turn


def mean(gradients: list[Gradient]) -> Gradient:
    """Their mean, added up in the order given; a row that some did not touch counts as 0 there."""
    if len(gradients) == 1:
        return gradients[0]
    share = np.float32(1 / len(gradients))
    dense = None
    if gradients[0].dense is not None:
        dense = gradients[0].dense.copy()
        for g in gradients[1:]:
            assert g.dense is not None
            dense += g.dense
        dense *= share
    rows: dict[str, tuple[Rows, Array]] = {}
    for name in sorted({name for g in gradients for name in g.rows}):
        parts = [g.rows[name] for g in gradients if name in g.rows]  # a worker may touch no row of this shard
        ids = np.concatenate([ids for ids, _ in parts])
        values = np.concatenate([values for _, values in parts])
        unique, inverse = np.unique(ids, return_inverse=True)
        summed = np.zeros((len(unique), values.shape[1]), np.float32)
        np.add.at(summed, inverse, values)
        rows[name] = (unique, summed * share)
    return Gradient(dense, rows, sum(g.examples for g in gradients))
