"""What the supervisor decides where there is no room, in a simulated cluster."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from psdevise.errors import WorkerLost
from psdevise.simulation.cluster import SimulatedCluster, SimulatedJob
from psdevise.simulation.disk import SimulatedDisk
from psdevise.simulation.faults import Fault
from psdevise.simulation.training import train
from psdevise.worker.downpour import DownpourOptions
from tests.simulation.counted import Counted

SLICES, EPOCHS = 20, 5


def job() -> SimulatedJob:
    SimulatedDisk.reset()
    return SimulatedJob(
        lambda: Counted((4,) * SLICES, EPOCHS), "simulated://run/snapshots", "simulated://run/incarnations.json"
    )


def full(monkeypatch: pytest.MonkeyPatch, begin: float, end: float) -> None:
    """From `begin` to `end`, in simulated seconds, the cluster has no room for a worker."""
    up = SimulatedCluster.up
    monkeypatch.setattr(SimulatedCluster, "up", lambda self: [] if begin < self.clock.now < end else up(self))


def test_the_rest_goes_on_while_a_worker_waits_for_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, 0.3, float("inf"))
    done = train(job(), Random(1), faults=[Fault(0.4, "worker dies", 1)])
    assert done.audit["refused"] == 0
    assert done.audit["finished"] > 0


def test_a_warm_start_goes_on_where_there_is_no_room_for_worker_0(monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, 0.3, float("inf"))
    warm = replace(job(), downpour=DownpourOptions(warm_start=10**6))
    done = train(warm, Random(1), faults=[Fault(0.4, "worker dies", 0)])
    rows = sum(stop - start for start, stop in warm.build().slices) * EPOCHS
    assert done.audit["finished"] == rows


def test_who_comes_when_all_is_done_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    up, run, ran = SimulatedCluster.up, SimulatedCluster.run_worker, list[int]()

    def room(cluster: SimulatedCluster) -> list[int]:
        return up(cluster) if cluster.clock.now < 0.3 or cluster.coordinator.ledger.done else []

    def run_worker(cluster: SimulatedCluster, rank: int) -> None:
        ran.append(rank)
        run(cluster, rank)

    monkeypatch.setattr(SimulatedCluster, "up", room)
    monkeypatch.setattr(SimulatedCluster, "run_worker", run_worker)
    train(job(), Random(1), faults=[Fault(0.4, "worker dies", 1)])
    assert sorted(ran) == [0, 1]


def test_a_cluster_without_workers_waits_for_room_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = [Fault(0.4, "worker dies", 0), Fault(0.4, "worker dies", 1)]
    full(monkeypatch, 0.3, 1.5)
    assert train(job(), Random(1), faults=deaths).seconds > 1.5
    full(monkeypatch, 0.3, float("inf"))
    with pytest.raises(WorkerLost, match="no worker is left, and there was no room for another within 2 s"):
        train(job(), Random(1), faults=deaths)
