"""`psdevise bench straggler`: four workers of which one takes ten times as long, beside three without it, and beside
the same four in synchronous training. What counts is the time until the loss, on pictures never seen before, is down to
a target."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from psdevise import store
from psdevise.bench import machine
from psdevise.bench.gate import Gate
from psdevise.bench.ours import Seen, audit_counts
from psdevise.bench.rounds import Rounds
from psdevise.bench.table import Context, Row
from psdevise.bench.timers import learning_task, losses_of
from psdevise.errors import BenchmarkFailed, Interrupted
from psdevise.runtime.job import ClusterOptions, Host, Job
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions

SEEDS = 5
TARGET = 1.0  # from 2.3: chance among ten classes
WINDOW = 48  # batches of 32 that a loss is the mean of
REFERENCE = "three_workers"


@dataclass(frozen=True)
class Plan:
    """Step times in seconds; `limit` seconds for a run."""

    seconds: float = 0.05
    slow_seconds: float = 0.5
    target: float = TARGET
    limit: float = 300.0


@dataclass(frozen=True)
class Side:
    workers: int
    slow: int
    synchronous: bool


SIDES = {
    "psdevise": Side(4, 1, synchronous=False),
    REFERENCE: Side(3, 0, synchronous=False),
    "synchronous": Side(4, 1, synchronous=True),
}


def run(context: Context) -> list[Row]:
    """Seconds to the target of each side with each seed; the ratio is within a seed."""
    from psdevise.runtime.cluster import disconnect, start_local
    from psdevise.runtime.training import OnRay

    os.environ.setdefault("RAY_worker_niceness", "0")
    start_local(max(4, os.cpu_count() or 1))
    try:
        rows = machine.figures("straggler")
        names = list(SIDES)
        values: dict[str, list[float]] = {name: [] for name in names}
        errors = dict.fromkeys(names, 0)
        for seed in range(SEEDS):
            for i in range(len(names)):
                name = names[(seed + i) % len(names)]
                context.on_progress(seed * len(names) + i, SEEDS * len(names), f"{name}, seed {seed}")
                taken, wrong = measure(SIDES[name], Plan(), context.seed + seed, OnRay())
                values[name].append(taken)
                errors[name] += wrong
        context.on_progress(SEEDS * len(names), SEEDS * len(names), "done")
    finally:
        disconnect()
    case = f"4 workers, 50 ms a step, one 500 ms, to a loss of {TARGET:g}"
    return rows + Rounds(values, errors).rows("straggler", case, "seconds_to_target", "s", REFERENCE)


def measure(side: Side, plan: Plan, seed: int, host: Host) -> tuple[float, int]:
    """One run → seconds from the first step to the target, and how many gradients are not accounted for.

    Raises:
        BenchmarkFailed: the target is not reached in time.
    """
    with tempfile.TemporaryDirectory(prefix="psdevise-bench-") as folder:
        path, log = os.path.join(folder, "gate"), os.path.join(folder, "losses")
        gate = Gate.create(path, side.workers)
        watch = Watch(gate, log, plan)
        seen = Seen()
        with suppress(Interrupted):
            host.train(make_job(folder, path, log, side, plan, seed), seen, watch)
        if watch.reached is None:
            raise BenchmarkFailed(f"a loss of {plan.target:g} was not reached in {plan.limit:g} s", where="straggler")
        return watch.reached, audit_counts(gate, seen)


class Watch:
    """The run's Ctrl-C: set when the loss is down, or the time is up. Opens the gate when all
    workers stand at it."""

    def __init__(self, gate: Gate, log: str, plan: Plan) -> None:
        self._gate, self._log, self._plan = gate, log, plan
        self.reached: float | None = None
        self._begin: float | None = None

    def is_set(self) -> bool:
        if self._begin is None:
            if not self._gate.attended:
                return False
            self._begin = time.monotonic()
            self._gate.open(2 * self._plan.limit)
        if not self._gate.finished:
            self.reached = seconds_to(self._plan.target, self._log)
            if self.reached is not None or time.monotonic() - self._begin > self._plan.limit:
                self._gate.finish()
        return self._gate.finished


def seconds_to(target: float, log: str) -> float | None:
    """From the first step's end to the first at which the mean loss of the last `WINDOW` steps is at most `target`."""
    steps = losses_of(log) if os.path.exists(log) else []
    if len(steps) < WINDOW:
        return None
    at, losses = np.array([s[0] for s in steps]), np.array([s[1] for s in steps])
    means = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), "valid")
    down = np.flatnonzero(means <= target)
    return float(at[down[0] + WINDOW - 1] - at[0]) / 1e9 if len(down) else None


def make_job(folder: str, gate: str, log: str, side: Side, plan: Plan, seed: int) -> Job:
    return Job(
        run=f"straggler-{os.getpid()}-{os.path.basename(folder)}",
        phase="straggler",
        build=partial(make_task, gate, log, side, plan, seed),
        snapshots=store.join(folder, "snapshots"),
        incarnations=store.join(folder, "incarnations.json"),
        seed=seed,
        phase_number=0,
        cluster=ClusterOptions(num_workers=side.workers),
        downpour=replace(DownpourOptions(), staleness=0) if side.synchronous else DownpourOptions(),
        optimizer=OptimizerOptions(rate=0.02),
    )


def make_task(gate: str, log: str, side: Side, plan: Plan, seed: int) -> Any:
    return learning_task(Gate(gate), log, plan.seconds, plan.slow_seconds, side.slow, seed)
