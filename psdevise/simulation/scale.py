"""One simulated cluster with measured costs → throughput, lag, what saturates, time to a loss, what deaths cost.

The shards, clients, workers, ledger, supervisor and snapshots are the product's own; what they compute and move is a
small model (`smallmodel`), and it takes as long as the real one was measured to take (`one_host`, `many_hosts`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from psdevise.errors import Diverged
from psdevise.simulation.clock import Clock
from psdevise.simulation.cluster import SimulatedJob
from psdevise.simulation.disk import SimulatedDisk
from psdevise.simulation.faults import Fault, Kind
from psdevise.simulation.many_hosts import ManyHosts
from psdevise.simulation.meter import Enough, Meter
from psdevise.simulation.one_host import OneHost
from psdevise.simulation.options import SimulateOptions
from psdevise.simulation.smallmodel import SmallModel
from psdevise.simulation.training import train
from psdevise.worker.downpour import DownpourOptions

FOLDER = "simulated://scale"
SLICES_PER_WORKER = 4
REPORT_SECONDS = 1.0  # as runtime.actors
FOREVER, MANY = 1e9, 10**9
FAULT_HOURS = 24  # for which deaths are drawn


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        steps_per_second: of all workers.
        efficiency: the share of it that as many workers would do that never wait for anything but their gradient.
        lag, lag_p95: updates between a gradient's parameters and its own update, mean and 95th percentile.
        used: what may be the bottleneck → the share of the time in which the most used of that name was in use.
        seconds_to_target: simulated, from the first step on; None if there is no target or it was not reached.
        loss: when it was last looked at; diverged: it was not finite any more, and that ended the run.
        updates: in the whole run.
        deaths: of workers and shards; rolled_back: updates that restored shards had lost, summed over shards;
            repeated: batches of slices that died with their workers, at most that many were computed twice.
    """

    steps_per_second: float
    efficiency: float
    lag: float
    lag_p95: float
    used: dict[str, float]
    seconds_to_target: float | None
    loss: float | None
    diverged: bool
    updates: int
    deaths: int
    rolled_back: int
    repeated: int

    @property
    def busiest(self) -> str:
        return max(self.used, key=lambda name: self.used[name], default="")


def _of_full_size(options: SimulateOptions) -> DownpourOptions:
    """What the workers would do with the whole model: the one that stands in for it here is small."""
    ahead = options.downpour.fetches_ahead(int(options.model.dense_mb * 1e6))
    return replace(options.downpour, overlap=ahead)


def simulate(options: SimulateOptions, on_progress: Callable[[int, int], None] = lambda done, of: None) -> Outcome:
    """The same options give the same outcome.

    Args:
        on_progress: called with (steps so far, steps at most).

    Raises:
        PsdeviseError: as the product raises it.
    """
    SimulatedDisk.reset()
    task, clock, random = _task(options), Clock(), Random(options.seed)
    meter = Meter(options, task, clock, on_progress)
    transport = (OneHost if options.hosts.together else ManyHosts)(options, clock, random, meter)
    meter.busy = transport.busy
    job = SimulatedJob(
        lambda: _task(options),
        f"{FOLDER}/snapshots",
        f"{FOLDER}/incarnations.json",
        seed=options.seed,
        workers=options.workers,
        shards=options.shards,
        downpour=_of_full_size(options),
        optimizer=options.optimizer,
        lag=options.lag,
        lease_seconds=options.lease_seconds,
        start_seconds=options.lease_seconds,
        snapshot_seconds=options.snapshot_seconds,
        report_seconds=REPORT_SECONDS,
        max_restarts=MANY,
    )
    faults = _faults(options, Random(f"{options.seed} faults"))
    diverged = False
    try:
        train(job, random, faults=faults, witness=meter, limit=FOREVER, hosts=(clock, transport))
    except Enough:
        pass
    except Diverged:
        diverged = True
    rate = meter.steps / max(meter.seconds, 1e-12)
    return Outcome(
        rate,
        rate * options.costs.compute / options.workers,
        *_lags(meter.lags),
        meter.used,
        meter.reached,
        meter.loss,
        diverged,
        meter.updates,
        sum(fault.at <= clock.now for fault in faults),
        meter.rolled_back,
        0 if meter.coordinator is None else meter.coordinator.ledger.audit.repeated,
    )


def _task(options: SimulateOptions) -> SmallModel:
    learning = options.learning
    return SmallModel(learning.hidden, learning.batch, SLICES_PER_WORKER * options.workers, options.seed)


def _faults(options: SimulateOptions, random: Random) -> list[Fault]:
    """Deaths at exponential times of each process's own, for `FAULT_HOURS`."""
    found = []
    rates: list[tuple[Kind, int, float]] = [
        ("worker dies", options.workers, options.failures.worker_deaths),
        ("shard dies", options.shards, options.failures.shard_deaths),
    ]
    for kind, processes, rate in rates:
        at = 0.0
        while rate and processes:
            at += 3600 * random.expovariate(rate * processes)
            if at > FAULT_HOURS * 3600:
                break
            found.append(Fault(at, kind, random.randrange(processes)))
    return found


def _lags(lags: Counter[int]) -> tuple[float, float]:
    """Mean and 95th percentile."""
    pushes, seen = lags.total(), 0
    for lag in sorted(lags):
        seen += lags[lag]
        if seen >= 0.95 * pushes:
            return sum(k * v for k, v in lags.items()) / pushes, float(lag)
    return 0.0, 0.0
