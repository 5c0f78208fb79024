"""What `psdevise simulate` is told: the model's bytes, what things cost, where processes are, what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from psdevise.config import option
from psdevise.errors import ConfigError
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.shard import LagOptions
from psdevise.worker.downpour import DownpourOptions


@dataclass(frozen=True)
class ModelOptions:
    """What is moved and stepped, in MB (10^6 bytes) of float32. Only its times are simulated: what is computed, pulled
    and pushed is a small model."""

    dense_mb: float = option(16.0, "dense parameters: all of them are pulled and pushed", low=0.0)
    rows_mb: float = option(0.0, "rows of tables that a step pulls and pushes, with what comes along", low=0.0)
    tables_mb: float = option(0.0, "whole tables, with their accumulators: what a snapshot writes", low=0.0)
    bytes_per_value: float = option(4.0, "bytes of a value on the wire: 4 as it is, fewer compressed", low=0.01, high=4)


@dataclass(frozen=True)
class CostOptions:
    """Seconds, of one core where nothing else is said. The defaults were measured on one core of an AMD EPYC."""

    compute: float = option(0.05, "a step's gradient", low=0.0)
    compute_cores: Literal[0, 1] = option(0, "cores of its host that takes: 0 where it is an accelerator's, or a wait")
    jitter: float = option(0.0, "by which share a step's gradient takes longer or shorter at most", low=0.0, high=1.0)
    step: float = option(0.001, "everything else in a worker's step", low=0.0)
    copy_gb: float = option(0.1, "copying a GB", low=0.0)
    check_gb: float = option(0.02, "looking through a GB for values that are not finite", low=0.0)
    update_gb: float = option(0.13, "Adagrad on a GB of parameters", low=0.0)
    codec_gb: float = option(0.15, "encoding or decoding a GB of float32, where bytes_per_value is below 4", low=0.0)
    message: float = option(0.00016, "sending a push to one shard of the same host", low=0.0)
    serve: float = option(0.0009, "a shard's part in a push from the same host, but for check and update", low=0.0)
    stream: float = option(0.0002, "a call to a shard of another host, on either side, but for its bytes", low=0.0)
    call: float = option(0.0005, "a Ray call, on either side: what the coordinator is asked", low=0.0)
    disk_gb: float = option(1.0, "writing or reading a GB of a snapshot", low=0.0)
    start: float = option(10.0, "until a process that was started is there", low=0.0)


@dataclass(frozen=True)
class HostOptions:
    """`together`: workers and shards on one host, through shared memory. Else each host has one network card, and
    calls between hosts go through a stream."""

    together: bool = option(True, "all on one host; false: workers on some hosts, shards on others")
    cores: float = option(2.0, "cores of a host", low=0.1)
    streams: float = option(1.4, "cores whose passes through memory a host's memory can feed at once", low=0.1)
    gbit: float = option(10.0, "speed of a host's network card each way, in Gbit/s", low=0.001)
    latency: float = option(0.0001, "seconds of the shortest message, one way", low=0.0)
    workers_per_host: int = option(1, "workers that share a host", low=1)
    shards_per_host: int = option(1, "shards that share a host", low=1)


@dataclass(frozen=True)
class FailureOptions:
    worker_deaths: float = option(0.0, "per worker and hour", low=0.0)
    shard_deaths: float = option(0.0, "per shard and hour", low=0.0)


@dataclass(frozen=True)
class LearningOptions:
    """The small model: a net 32-hidden-10 that learns a drawn teacher's classes, from batches never seen before."""

    target: float | None = option(None, "loss to be reached on drawn pictures; null: only throughput is of interest")
    hidden: int = option(32, "units of its hidden layer", low=1)
    batch: int = option(32, "examples of a batch", low=1)
    limit: int = option(20_000, "steps of all workers together after which the target is given up", low=1)


@dataclass(frozen=True)
class SimulateOptions:
    workers: int = option(2, "workers", low=1)
    shards: int = option(1, "shards", low=1)
    steps: int = option(30, "steps of each worker that throughput and lag are taken from, after the warm-up", low=1)
    warm_up: int = option(5, "steps of each worker before them", low=0)
    seconds: float = option(0.0, "simulated seconds that they are taken from at least", low=0.0)
    snapshot_seconds: float = option(60.0, "time between two snapshots", low=0.01)
    lease_seconds: float = option(3600.0, "how long a worker may be silent", low=0.1)
    seed: int = option(0, "seed of everything random")
    model: ModelOptions = option(ModelOptions(), "")
    costs: CostOptions = option(CostOptions(), "")
    hosts: HostOptions = option(HostOptions(), "")
    failures: FailureOptions = option(FailureOptions(), "")
    learning: LearningOptions = option(LearningOptions(), "")
    downpour: DownpourOptions = option(DownpourOptions(deadline=3600.0, max_in_flight_mb=1e6), "")
    optimizer: OptimizerOptions = option(OptimizerOptions(rate=0.02), "of the small model")
    lag: LagOptions = option(LagOptions(), "")

    def __post_init__(self) -> None:
        if not self.model.dense_mb and not self.model.rows_mb:
            raise ConfigError("the model has neither dense parameters nor rows", where="model")
