"""`psdevise bench memory`: bytes per parameter byte of server, worker and driver beyond an actor that has only imported
torch, while training and while a snapshot is written; how long a snapshot holds updates up; growth over many steps.

PSS (/proc/PID/smaps_rollup) counts a page that several processes share in equal parts, so the sum over the processes is
what the machine has to have. Ray's object store is counted beside it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from psdevise import store
from psdevise.bench import arithmetic, machine
from psdevise.bench.gate import Gate
from psdevise.bench.ours import Seen, audit_counts
from psdevise.bench.rounds import median
from psdevise.bench.table import Context, Row
from psdevise.bench.tasks import INITIAL_ACCUMULATOR, RATE, Batch, Marked
from psdevise.bench.timers import losses_of, write_step
from psdevise.errors import BenchmarkFailed, Interrupted
from psdevise.events import Event, Progress, SnapshotWritten
from psdevise.runtime.actor import ask_all, object_store_bytes, spawn
from psdevise.runtime.cluster import disconnect, start_local
from psdevise.runtime.job import ClusterOptions, Host, Job
from psdevise.runtime.training import OnRay
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask, of_mean

SAMPLE_SECONDS = 0.05
NUMBERS = ("server", "worker", "driver")


@dataclass(frozen=True)
class Plan:
    """`megabytes` of parameters, so many steps; a snapshot every so many seconds."""

    megabytes: float
    steps: int
    snapshot_seconds: float


LARGE = Plan(240.0, 300, 15.0)
LONG = Plan(1.0, 20_000, 60.0)


def run(context: Context) -> list[Row]:
    os.environ.setdefault("RAY_worker_niceness", "0")
    rows = machine.figures("memory")
    start_local(max(2, os.cpu_count() or 1))
    try:
        base = torch_only()
        rows.append(_row("an actor that has only imported torch", "memory", base / 1e6, "MB"))
        for i, plan in enumerate((LARGE, LONG)):
            context.on_progress(i, 2, f"{plan.megabytes:g} MB, {plan.steps:,} steps")
            samples = measure(plan, OnRay())
            rows += levels(plan, samples, base) if plan is LARGE else growth(plan, samples)
        context.on_progress(2, 2, "done")
    finally:
        disconnect()
    return rows


@dataclass
class Samples:
    """Per role: (seconds, PSS in bytes) all through the training; `store` likewise; snapshots as (begin, end) on the
    same clock, and for how many seconds they held updates up; `steps` the ends of the worker's steps; what was
    wrong."""

    pss: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {n: [] for n in NUMBERS})
    store: list[tuple[float, int]] = field(default_factory=list)
    snapshots: list[tuple[float, float]] = field(default_factory=list)
    held_up: set[float] = field(default_factory=set)
    steps: list[float] = field(default_factory=list)
    driver_before: int = 0
    errors: int = 0


def measure(plan: Plan, host: Host) -> Samples:
    """Trains with one worker and one shard, and looks at the processes all the while."""
    with tempfile.TemporaryDirectory(prefix="psdevise-bench-") as folder:
        path, log = os.path.join(folder, "gate"), os.path.join(folder, "steps")
        gate = Gate.create(path, 1)
        samples = Samples(driver_before=pss(os.getpid()))
        pids = {"driver": os.getpid()}
        seen, ended = Seen(), threading.Event()

        def on_event(event: Event) -> None:
            seen(event)
            now = time.monotonic()
            if isinstance(event, SnapshotWritten):
                samples.snapshots.append((now - event.seconds, now))
            if isinstance(event, Progress):
                pids.update(_pids(event))
                samples.held_up |= {s.get("held_up_seconds", 0.0) for s in event.shards} - {0.0}

        def sample() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                now = time.monotonic()
                for role, pid in dict(pids).items():
                    if (found := pss(pid)) > 0:
                        samples.pss[role].append((now, found))
                samples.store.append((now, object_store_bytes()))

        watch = Watch(gate, plan)
        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            with suppress(Interrupted):
                host.train(make_job(plan, folder, path, log), on_event, watch)
        finally:
            ended.set()
            thread.join()
        samples.steps = [at / 1e9 for at, _ in losses_of(log)]
        samples.errors = audit_counts(gate, seen)
        return samples


class Watch:
    """The run's Ctrl-C: set after so many steps. Opens the gate when the worker stands at it."""

    def __init__(self, gate: Gate, plan: Plan) -> None:
        self._gate, self._plan, self._opened = gate, plan, False

    def is_set(self) -> bool:
        if not self._opened and self._gate.attended:
            self._gate.open(1e6)
            self._opened = True
        if self._gate.total >= self._plan.steps:
            self._gate.finish()
        return self._gate.finished


def make_job(plan: Plan, folder: str, gate: str, log: str) -> Job:
    return Job(
        run=f"memory-{os.getpid()}-{plan.megabytes:g}",
        phase="memory",
        build=partial(make_task, plan, gate, log),
        snapshots=store.join(folder, "snapshots"),
        incarnations=store.join(folder, "incarnations.json"),
        seed=0,
        phase_number=0,
        cluster=ClusterOptions(num_workers=1, snapshot_seconds=plan.snapshot_seconds, snapshot_share=1.0),
        downpour=DownpourOptions(),
        optimizer=OptimizerOptions(rate=RATE, initial_accumulator=INITIAL_ACCUMULATOR),
    )


def make_task(plan: Plan, path: str, log: str) -> ModuleTask:
    """Layers of 1 to 16 MB whose compute is short: what a step holds in memory is parameters and gradients."""
    gate = Gate(path)
    width = 512 if plan.megabytes < 16 else 2048
    layers = max(1, round(plan.megabytes * 1e6 / (4 * width * width)))
    module = Marked(nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)), nn.Linear(width, 10)))
    drawn = torch.randn(4, width), torch.randint(10, (4,))

    def loss(module: nn.Module, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        assert isinstance(module, Marked)
        gate.enter(wrong=int(module.torn))
        value = module(*batch)
        gate.count()
        write_step(log, 0.0)
        return of_mean(value, 4)

    def read(start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        for row in range(start, stop):
            if gate.finished and row > start:
                return
            yield drawn

    return ModuleTask(module, loss, read, [(i * 40, (i + 1) * 40) for i in range(20)], 400)


# -------------------------------------------------------------------------------- figures


def levels(plan: Plan, samples: Samples, base: int) -> list[Row]:
    """Bytes beyond `base` per byte of parameters: the median while training, and the highest while a snapshot is
    written; the driver beyond what it had before. For how long a snapshot holds the shard's updates up, in memcpy
    times; and how much longer than others the longest step meanwhile is, for writing takes CPU time too."""
    begin, end = samples.steps[len(samples.steps) // 10], samples.steps[-1]
    size = plan.megabytes * 1e6
    case = f"{plan.megabytes:g} MB"
    inside = [s for s in samples.snapshots if begin <= s[0] and s[1] <= end]
    if not inside or not samples.held_up:
        raise BenchmarkFailed("no snapshot was written while the worker trained", where="bench memory")
    rows = []
    for role in NUMBERS:
        under = samples.driver_before if role == "driver" else base
        found = [(at, (value - under) / size) for at, value in samples.pss[role] if begin <= at <= end]
        still = [v for at, v in found if not _within(at, inside)]
        peaks = [max([v for at, v in found if a <= at <= b], default=0.0) for a, b in inside]
        rows.append(Row("memory", case, role, "memory_training", *median(still), "x parameters", errors=samples.errors))
        rows.append(Row("memory", case, role, "memory_snapshot", *median(peaks), "x parameters", errors=samples.errors))
    held = [value / size for at, value in samples.store if begin <= at <= end]
    rows.append(Row("memory", case, "object_store", "memory_training", *median(held), "x parameters"))
    memcpy = arithmetic.seconds(arithmetic.memcpy(int(size / 4)), 7) * 1e3
    pauses = [seconds * 1e3 for seconds in samples.held_up]
    ratio = median(pauses)[0] / memcpy
    rows.append(Row("memory", case, "server", "update_pause", *median(pauses), "ms", "memcpy", ratio))
    longer = [seconds * 1e3 for seconds in lengthened(samples.steps, inside)]
    rows.append(Row("memory", case, "worker", "longest_step_beyond_median", *median(longer), "ms"))
    return rows


def growth(plan: Plan, samples: Samples) -> list[Row]:
    """Bytes per step that each process grows by, by a line through its PSS after the first tenth of the steps."""
    begin, end = samples.steps[len(samples.steps) // 10], samples.steps[-1]
    at = np.array(samples.steps)
    rows = []
    for role in NUMBERS:
        found = [(t, v) for t, v in samples.pss[role] if begin <= t <= end]
        steps = np.searchsorted(at, [t for t, _ in found])
        slope = float(np.polyfit(steps, [v for _, v in found], 1)[0])
        case = f"{plan.steps:,} steps"
        rows.append(Row("memory", case, role, "growth", slope, slope, slope, "bytes per step", errors=samples.errors))
    return rows


def lengthened(steps: list[float], windows: list[tuple[float, float]]) -> list[float]:
    """For each window, the longest step that touches it less the median step: seconds."""
    at = np.array(steps)
    lengths = np.diff(at)
    usual = float(np.median(lengths))
    longest = []
    for a, b in windows:
        touching = lengths[(at[1:] >= a) & (at[:-1] <= b)]
        longest.append(max(0.0, float(touching.max()) - usual) if len(touching) else 0.0)
    return longest


def _pids(event: Progress) -> dict[str, int]:
    workers = [("worker", f.gauges.get("pid")) for f in event.figures]
    servers = [("server", s.get("pid")) for s in event.shards]
    return {role: int(pid) for role, pid in workers + servers if pid}


def pss(pid: int) -> int:
    """Proportional set size in bytes; 0 of a process that is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


class TorchOnly:
    """An actor that has imported torch, and nothing of psdevise."""

    def pss(self) -> int:
        import torch

        torch.ones(1).sum()
        with open("/proc/self/smaps_rollup") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))


def torch_only() -> int:
    """PSS of such an actor beside another one: a worker and a shard share torch's code between them, too."""
    actors = [spawn(TorchOnly) for _ in range(2)]
    ask_all(actors, "pss")
    found = int(actors[0].ask("pss"))
    for actor in actors:
        actor.end()
    return found


def _within(at: float, windows: list[tuple[float, float]]) -> bool:
    return any(a <= at <= b for a, b in windows)


def _row(system: str, metric: str, value: float, unit: str) -> Row:
    return Row("memory", "machine", system, metric, value, value, value, unit)
