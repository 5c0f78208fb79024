"""What is measured in a simulated run: steps, lags, what is busy, the loss, what deaths took back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from psdevise.server.coordinator import Coordinator
from psdevise.server.protocol import Ack, Version
from psdevise.simulation.clock import Clock
from psdevise.simulation.network import ShardLife
from psdevise.simulation.options import SimulateOptions
from psdevise.simulation.smallmodel import SmallModel
from psdevise.simulation.witness import Witness
from psdevise.simulation.worker import SimulatedWorker
from psdevise.worker.effects import Call

LOOK_PUSHES = 16  # between two looks at the loss


class Enough(BaseException):
    """All that was to be measured is."""


@dataclass
class Meter(Witness):
    """Raises `Enough` where the run is to end.

    Args:
        on_progress: called with (steps so far, steps at most).
        busy: seconds of use so far, by name, for each of that name.

    Attributes:
        seconds, steps: of the span that is measured, from the end of the warm-up on; `lags`: of its pushes.
        used: by name, the share of that span in which the most used was in use.
        reached: simulated seconds from the first step to the target; None where it was not reached.
        rolled_back: updates that restored shards had lost.
        coordinator: of the run; its ledger knows what was repeated.
    """

    options: SimulateOptions
    task: SmallModel
    clock: Clock
    on_progress: Callable[[int, int], None]
    busy: Callable[[], dict[str, list[float]]] = dict
    steps: int = 0
    seconds: float = 0.0
    total: int = 0
    lags: Counter[int] = field(default_factory=Counter)
    used: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    reached: float | None = None
    updates: int = 0
    rolled_back: int = 0
    coordinator: Coordinator | None = None
    _begin: float | None = None
    _span: float | None = None
    _before: dict[str, list[float]] = field(default_factory=dict)
    _done: bool = False
    _lives: dict[int, ShardLife] = field(default_factory=dict)

    def computed(self, worker: SimulatedWorker) -> None:
        options, now = self.options, self.clock.now
        self._begin = now if self._begin is None else self._begin
        self.total += 1
        warm, wanted = options.warm_up * options.workers, options.steps * options.workers
        if self._span is None:
            if self.total >= warm:
                self._span, self._before = now, self.busy()
        elif not self._done:
            self.steps, self.seconds = self.steps + 1, now - self._span
            if self.steps >= wanted and self.seconds >= options.seconds:
                self._done = True
                self.used = {name: self._most(name, values) for name, values in self.busy().items()}
        self._report(warm + wanted)
        self._stop_if_done()

    def served(self, life: ShardLife, call: Call, reply: Any, before: Version) -> None:
        if not isinstance(reply, Ack) or reply.outcome != "applied" or call.method != "push":
            return
        if self._span is not None and not self._done:
            self.lags[reply.lag] += 1
        if life.index == 0:
            self.updates += 1
            if self.options.learning.target is not None and self.updates % LOOK_PUSHES == 0:
                self._look()

    def resumed(self, number: int, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    def restored(self, life: ShardLife, number: int, shards: int) -> None:
        dead = self._lives.get(life.index)
        if dead is not None:
            self.rolled_back += dead.shard.version.counter - life.shard.version.counter
        self._lives[life.index] = life

    def _look(self) -> None:
        """The loss of what the shards hold at this moment."""
        parts = [self._lives[i].shard.pull().dense for i in range(self.options.shards)]
        self.loss = self.task.loss(np.concatenate([p for p in parts if p is not None]))
        target = self.options.learning.target
        if self.reached is None and target is not None and self.loss <= target and self._begin is not None:
            self.reached = self.clock.now - self._begin
            self._stop_if_done()

    def _stop_if_done(self) -> None:
        learned = self.options.learning.target is None or self.reached is not None
        if self._done and (learned or self.total >= self.options.learning.limit):
            raise Enough

    def _most(self, name: str, values: list[float]) -> float:
        before = self._before.get(name, [])
        before = [*before, *[0.0] * (len(values) - len(before))]
        return max((b - a for a, b in zip(before, values, strict=True)), default=0.0) / max(self.seconds, 1e-12)

    def _report(self, measured: int) -> None:
        of = measured if self.options.learning.target is None else max(measured, self.options.learning.limit)
        if self.total % 32 == 0:
            self.on_progress(min(self.total, of), of)
