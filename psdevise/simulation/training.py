"""One phase in a simulated cluster, and the same command given again until it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from psdevise.errors import DeadlineExceeded
from psdevise.events import Event, SnapshotWritten
from psdevise.server.coordinator import Coordinator
from psdevise.server.hands import Terms
from psdevise.server.incarnations import Incarnations
from psdevise.server.ledger import Ledger
from psdevise.server.shard import ShardState
from psdevise.server.start import begin_phase
from psdevise.server.supervisor import Supervisor
from psdevise.simulation.clock import Clock
from psdevise.simulation.cluster import SimulatedCluster, SimulatedJob
from psdevise.simulation.faults import Costs, Fault, Weather
from psdevise.simulation.network import Network, Transport
from psdevise.simulation.witness import Witness


@dataclass(frozen=True)
class Simulated:
    """The states of the shards at the end, the ledger's audit, and how long it took, in simulated seconds."""

    states: list[ShardState]
    audit: Mapping[str, Any]
    seconds: float


def train(
    job: SimulatedJob,
    random: Random,
    weather: Weather | None = None,
    costs: Costs | None = None,
    faults: Iterable[Fault] = (),
    witness: Witness | None = None,
    limit: float = 120.0,
    hosts: tuple[Clock, Transport] | None = None,
) -> Simulated:
    """Trains one phase to its end, or to the first thing that ends a run.

    Args:
        hosts: what carries the calls and takes the time, instead of a `Network` of `weather` and `costs`.

    Raises:
        DriverKilled: by a fault; all processes of the run are gone.
        Interrupted: by a fault; a last snapshot was written.
        PsdeviseError: as the product raises it; DeadlineExceeded also after `limit` simulated seconds.
    """
    weather, costs, witness = weather or Weather(), costs or Costs(), witness or Witness()
    if hosts is None:
        clock = Clock()
        hosts = clock, Network(clock, random, weather, costs, witness)
    clock, network = hosts
    task = job.build()
    layout = replace(task.layout, shards=job.shards)
    start = begin_phase(job.snapshots, layout, task.initial)
    ledger = Ledger(task.slices, task.epochs, job.seed, job.lease_seconds)
    coordinator = Coordinator(ledger, job.downpour.bound, job.downpour.warm_start, job.workers, job.start_seconds)
    if start.coordinator is not None:
        coordinator.restore(start.coordinator)
    witness.resumed(start.number, coordinator)
    cluster = SimulatedCluster(job, layout, coordinator, clock, network, witness)

    def on_event(event: Event) -> None:
        if isinstance(event, SnapshotWritten):
            witness.committed(event.number)

    def out_of_time() -> None:
        raise DeadlineExceeded(f"not done after {limit:g} simulated seconds", where="simulation")

    for fault in faults:
        clock.after(fault.at, partial(cluster.suffer, fault))
    clock.after(limit, out_of_time)
    bounds = job.max_restarts, job.max_bad_gradients, job.start_seconds
    terms = Terms("simulated", job.workers, job.downpour.bound, job.snapshot_seconds, job.snapshot_share, *bounds)
    supervisor = Supervisor(
        cluster, terms, layout, Incarnations(job.incarnations), start, on_event, lambda status, stats, last: None
    )
    supervisor.start()
    status = supervisor.watch(lambda: cluster.interrupted)
    states = [cluster.shards[i].shard.snapshot() for i in range(job.shards)]
    return Simulated(states, status["audit"], clock.now)
