"""What a host is asked to train, and with what means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from psdevise.config import option
from psdevise.errors import ConfigError
from psdevise.events import Listener
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Array
from psdevise.server.shard import LagOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.task import Task


@dataclass(frozen=True)
class ClusterOptions:
    """How many workers and shards there are, and what each gets. Changes no artifact's key."""

    host: Literal["ray", "inprocess"] = option("ray", "ray, or inprocess: workers in turn in this process, for tests")
    address: str | None = option(None, "Ray cluster to join; null starts one in this process, or joins the job's own")
    num_workers: int = option(2, "Downpour workers", low=1)
    min_workers: int | None = option(
        None, "workers that a phase begins with; the others join when there is room for them; null: all", low=1
    )
    num_shards: int = option(1, "parameter-server shards", low=1)
    cpus_per_worker: float = option(1.0, "CPU cores for each worker", low=0.0)
    gpus_per_worker: float = option(0.0, "GPUs for each worker; a worker with a GPU computes on it", low=0.0)
    gpu_workers: int | None = option(None, "how many of the workers get a GPU; null: all", low=0)
    cpus_per_shard: float = option(0.0, "CPU cores reserved for each shard", low=0.0)
    shards_on: str | None = option(None, "Ray label KEY=VALUE of the nodes for shards; null: any but spot nodes")
    start_timeout: float = option(120.0, "seconds to wait for Ray to place all workers and shards", low=1.0)
    lease_seconds: float = option(60.0, "how long a worker may be silent before its slices go to others", low=4.0)
    snapshot_seconds: float = option(60.0, "seconds between two snapshots of a phase", low=0.1)
    snapshot_share: float = option(
        0.05,
        "share of a phase after which a snapshot is due, too, so that a short phase has some; not where writing them"
        " would take over a tenth of the time",
        low=0.0,
        high=1.0,
    )
    max_restarts: int = option(20, "deaths of workers and shards in one phase before the run gives up", low=0)
    max_bad_gradients: int = option(
        10, "gradients of one worker that may be refused (not finite, wrong shape) before it is replaced", low=1
    )
    read_ahead: int = option(4, "batches that are read and decoded ahead of the compute", low=1)

    def __post_init__(self) -> None:
        if self.shards_on is not None and not all(self.shards_on.partition("=")):
            raise ConfigError(f"{self.shards_on!r} is no KEY=VALUE", where="cluster.shards_on")

    @property
    def first_workers(self) -> int:
        """How many a phase begins with: those of the lowest ranks."""
        return self.num_workers if self.min_workers is None else min(self.min_workers, self.num_workers)


class Interrupt(Protocol):
    """Whether the user has asked to stop (Ctrl-C)."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Job:
    """One phase's training.

    Args:
        build: makes the task; called on every worker and once by the host (picklable).
        snapshots: the folder of this phase's snapshots; a run goes on from the last good one.
        incarnations: the file that holds the last incarnation handed out in this run.
        logs: the folder of the actors' logs, a file each; empty for none.
    """

    run: str
    phase: str
    build: Callable[[], Task]
    snapshots: str
    incarnations: str
    seed: int
    phase_number: int
    cluster: ClusterOptions
    downpour: DownpourOptions
    optimizer: OptimizerOptions
    lag: LagOptions = field(default_factory=LagOptions)
    unit: str = "examples"
    logs: str = ""


@dataclass(frozen=True)
class Trained:
    """name → value of all parameters, tables and buffers, and what the training cost."""

    parameters: dict[str, Array]
    audit: dict[str, Any]
    bill: dict[str, float]


class Host(Protocol):
    """Trains a job to its end, or until interrupted (raises Interrupted after a last snapshot)."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained: ...
