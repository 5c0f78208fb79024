"""A seed → what is trained, how, and what goes wrong meanwhile; and the run of it, with every promise checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from psdevise.errors import Interrupted, PsdeviseError, StoreError
from psdevise.server.shard import LagOptions
from psdevise.simulation.cluster import SimulatedJob
from psdevise.simulation.disk import SimulatedDisk
from psdevise.simulation.faults import Costs, DriverKilled, Fault, Kind, Weather
from psdevise.simulation.training import Simulated, train
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.task import Task
from tests.simulation.books import Violation
from tests.simulation.counted import OPTIMIZER, Counted
from tests.simulation.reference import Reference

HANG: Kind = "worker hangs"
ENDINGS: tuple[Kind, ...] = ("driver dies", "interrupt")
DISK: tuple[Kind, ...] = ("disk full", "file cut")
FOREVER = float("inf")
STORM = Weather(jitter=0.01, lost=0.3)
"""Many calls are executed and their answers lost, while shards die again and again: what the table is there for."""


@dataclass(frozen=True)
class Schedule:
    """`runs`: (workers, shards, faults) of the first run and of each that goes on after it. `equal`: whether all that
    goes wrong leaves the result as it is, bit for bit (promise 10)."""

    seed: int
    batches: tuple[int, ...]
    epochs: int
    downpour: DownpourOptions
    lag: LagOptions
    weather: Weather
    costs: Costs
    snapshot_seconds: float
    runs: tuple[tuple[int, int, tuple[Fault, ...]], ...]
    equal: bool
    poisoned: int | None


def draw(seed: int) -> Schedule:
    r = Random(seed)
    batches = tuple(r.randint(1, 3) for _ in range(r.randint(3, 7)))
    bound: Any = r.choice(["unbounded", "unbounded", "unbounded", 0, 0, 1, 3])
    n_push = 1 if bound == 0 else r.choice([1, 1, 2, 3])
    n_fetch = 1 if bound == 0 else r.choice([1, 1, 2])
    downpour = DownpourOptions(
        n_fetch=n_fetch,
        n_push=n_push,
        local_step="adagrad" if n_fetch > 1 else "none",
        staleness=bound,
        overlap=r.random() < 0.7,
        warm_start=r.choice([0, 0, 0, 3]) if bound == "unbounded" else 0,
        deadline=8.0,
    )
    lag = r.choice([LagOptions(), LagOptions(), LagOptions("scale"), LagOptions("refuse", max_lag=2)])
    if bound == 0:
        lag = LagOptions()
    weather = r.choice(
        [
            Weather(),
            Weather(jitter=0.01),
            Weather(jitter=0.03, lost=0.03, doubled=0.03),
            Weather(jitter=0.005, lost=0.08),
            Weather(latency=0.01, jitter=0.05, doubled=0.1),
            STORM,
        ]
    )
    costs = Costs(compute=r.choice([0.005, 0.02]), serve=r.choice([0.0002, 0.004]), write=r.choice([0.002, 0.03]))
    workers, shards = r.randint(1, 4), r.randint(1, 3)
    equal = bound == 0 and r.random() < 0.6
    runs = []
    for number in range(5):
        runs.append((workers, shards, tuple(_faults(r, equal, 5 if weather is STORM else 0, calm=number >= 3))))
        if not equal and r.random() < 0.3:
            workers, shards = r.randint(1, 4), r.randint(1, 3)
    return Schedule(
        seed,
        batches,
        4 if weather is STORM else r.randint(1, 2),
        downpour,
        lag,
        weather,
        costs,
        0.05 if weather is STORM else r.choice([0.05, 0.15, 0.4]),
        tuple(runs),
        equal,
        0 if r.random() < 0.1 and not equal else None,  # else a worker may be replaced, which promise 10 does not cover
    )


def _faults(r: Random, equal: bool, shard_deaths: int, calm: bool) -> list[Fault]:
    found: list[Fault] = []
    if calm:
        return found
    span = r.choice([0.2, 0.6, 1.2]) if not shard_deaths else 3.0

    def at() -> float:
        return 0.05 + span * r.random()

    if not equal:
        for _ in range(r.choice([0, 0, 1, 2])):
            found.append(Fault(at(), "worker dies", r.randint(0, 3)))
        for _ in range(r.choice([0, 0, 0, 1])):
            found.append(Fault(at(), HANG, r.randint(0, 3), r.choice([0.5, 1.5, 2.5, FOREVER])))
        for _ in range(shard_deaths or r.choice([0, 0, 1, 2])):
            found.append(Fault(at(), "shard dies", r.randint(0, 2)))
    if r.random() < 0.4:
        found.append(Fault(at(), r.choice(ENDINGS)))
    if r.random() < 0.15:
        kind = r.choice(DISK)
        moment = at()
        found.append(Fault(moment, kind, r.randint(0, 3), r.random()))
        if kind == "file cut" and r.random() < 0.5:  # else a shard that dies finds it
            found.append(Fault(moment, "driver dies"))
    return found


def run(schedule: Schedule) -> Reference:
    """Until the same command, given again, has come to the end.

    Raises:
        Violation: a promise was broken.
    """
    SimulatedDisk.reset()
    folder = "simulated://run"
    build: Callable[[], Task] = lambda: Counted(schedule.batches, schedule.epochs, schedule.poisoned)  # noqa: E731
    task = Counted(schedule.batches, schedule.epochs)
    reference = Reference(
        f"{folder}/snapshots",
        task.n,
        schedule.downpour.bound,
        task.n,
        schedule.epochs,
        schedule.downpour.max_in_flight_mb * 1e6,
    )
    job = SimulatedJob(
        build,
        f"{folder}/snapshots",
        f"{folder}/incarnations.json",
        seed=schedule.seed,
        downpour=schedule.downpour,
        optimizer=OPTIMIZER,
        lag=schedule.lag,
        snapshot_seconds=schedule.snapshot_seconds,
    )
    r = Random(schedule.seed)
    for workers, shards, faults in schedule.runs:
        SimulatedDisk.full_at = frozenset()
        job = replace(job, workers=workers, shards=shards)
        try:
            done = train(job, r, schedule.weather, schedule.costs, faults, reference)
        except (DriverKilled, Interrupted):
            continue
        except StoreError as e:
            if e.what.startswith("no space left"):
                continue
            raise Violation(f"the run does not go on: {e}") from e
        except PsdeviseError as e:
            raise Violation(f"the run does not go on: {type(e).__name__}: {e}") from e
        reference.ended(dict(done.audit), done.states)
        if schedule.equal:
            _compare(done, undisturbed(job, schedule))
        return reference
    raise Violation("not done although nothing went wrong any more")


def undisturbed(job: SimulatedJob, schedule: Schedule) -> Simulated:
    SimulatedDisk.reset()
    return train(job, Random(0), costs=schedule.costs)


def _compare(one: Simulated, other: Simulated) -> None:
    """10: parameters and optimizer state, bit for bit."""
    for index, (a, b) in enumerate(zip(one.states, other.states, strict=True)):
        for name, value in b.tensors.items():
            if not np.array_equal(a.tensors[name], value):
                raise Violation(f"shard {index}: {name} is not that of an undisturbed run")
