"""One /metrics endpoint per run: the event stream as Prometheus series.

Names, kinds, labels and help texts stand in one table, METRICS. Values are read from the last events when a
scrape comes, so counters are absolute and the series of workers and phases that have ended end with them.
A worker or shard that was replaced counts from zero again, which Prometheus' rate() takes for a reset.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from psdevise.errors import ConfigError
from psdevise.events import (
    Event,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Restarted,
    RunFinished,
    SnapshotWritten,
)


class Row(NamedTuple):
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


RUN = ("run",)
PHASE = ("run", "phase")
WORKER = ("run", "phase", "worker")
SHARD = ("run", "phase", "shard")

# A counter is exposed with `_total` behind its name, a histogram with `_bucket`, `_count` and `_sum`.
METRICS: dict[str, Row] = {
    "psdevise_examples": Row("counter", "Examples whose gradients a worker has computed.", WORKER),
    "psdevise_words": Row("counter", "Words of text that a worker has trained on.", WORKER),
    "psdevise_steps": Row("counter", "Steps (minibatches) of a worker.", WORKER),
    "psdevise_compute_seconds": Row("counter", "Seconds that a worker has computed.", WORKER),
    "psdevise_wire_seconds": Row("counter", "Seconds that a worker has sent or waited for shards.", WORKER),
    "psdevise_read_seconds": Row("counter", "Seconds that a worker has waited for data.", WORKER),
    "psdevise_pulled_bytes": Row("counter", "Bytes of parameters that a worker has fetched.", WORKER),
    "psdevise_pushed_bytes": Row("counter", "Bytes of gradients that a worker has pushed.", WORKER),
    "psdevise_in_flight_bytes": Row("gauge", "Bytes of pushes that wait for their answers.", WORKER),
    "psdevise_lag": Row("gauge", "Lag of a worker's last push: updates applied since its fetch.", WORKER),
    "psdevise_push_lag": Row("histogram", "Lag of the pushes that a shard has answered, in updates.", SHARD),
    "psdevise_pushes": Row("counter", "Pushes by what became of them.", (*SHARD, "outcome")),
    "psdevise_shard_version": Row("gauge", "Updates in a shard's parameters.", SHARD),
    "psdevise_shard_incarnation": Row("gauge", "Incarnation of a shard; grows with each restart.", SHARD),
    "psdevise_shard_update_seconds": Row("counter", "Seconds that a shard has worked on pushes.", SHARD),
    "psdevise_loss": Row("gauge", "Mean loss of an example over the last seconds.", PHASE),
    "psdevise_learning_rate_multiplier": Row("gauge", "What the schedule multiplies the rate by.", PHASE),
    "psdevise_workers_alive": Row("gauge", "Workers that hold a lease.", PHASE),
    "psdevise_progress_ratio": Row("gauge", "Share of the phase that is done.", PHASE),
    "psdevise_snapshots": Row("counter", "Snapshots written.", PHASE),
    "psdevise_snapshot_duration_seconds": Row("gauge", "Seconds that the last snapshot took.", PHASE),
    "psdevise_snapshot_timestamp_seconds": Row("gauge", "Unix time of the last snapshot.", PHASE),
    "psdevise_restarts": Row("counter", "Workers and shards that died and were replaced.", (*PHASE, "role")),
    "psdevise_phase_seconds": Row("gauge", "Seconds that a finished phase took, 0 if reused.", PHASE),
    "psdevise_run_finished": Row("gauge", "1 once the run has ended well.", RUN),
    "psdevise_build_info": Row("gauge", "Always 1; the versions are labels.", (*RUN, "version", "python")),
}
# metric → name in WorkerFigures.counters, in WorkerFigures.gauges
WORKER_COUNTERS = {
    "psdevise_examples": "examples",
    "psdevise_words": "words",
    "psdevise_compute_seconds": "compute_seconds",
    "psdevise_wire_seconds": "wire_seconds",
    "psdevise_read_seconds": "read_seconds",
    "psdevise_pulled_bytes": "bytes_pulled",
    "psdevise_pushed_bytes": "bytes_pushed",
}
WORKER_GAUGES = {"psdevise_lag": "lag", "psdevise_in_flight_bytes": "in_flight_bytes"}
LAG_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100)

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


class Server(NamedTuple):
    """Where /metrics is answered."""

    address: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/metrics"


class Monitor(Collector):
    """A listener of the event stream with a registry of its own.

    Args:
        run: value of the label `run` on every series.
        clock: Unix time, for when a snapshot was written.
    """

    def __init__(self, run: str, clock: Callable[[], float] = time.time) -> None:
        self._run, self._clock = run, clock
        self._lock = threading.Lock()  # events and scrapes come from different threads
        self._live: dict[str, Progress] = {}
        self._snapshots: dict[str, tuple[int, float, float]] = {}
        self._restarts: dict[tuple[str, str], int] = {}
        self._finished: dict[str, float] = {}
        self._done = False
        self._endpoint: tuple[Any, threading.Thread] | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case PhaseStarted(phase=phase):
                    self._live[phase] = Progress(phase, 0.0)
                case Progress(phase=phase):
                    self._live[phase] = event
                case SnapshotWritten(phase, _, seconds):
                    count = self._snapshots.get(phase, (0, 0.0, 0.0))[0]
                    self._snapshots[phase] = (count + 1, seconds, self._clock())
                case Restarted(phase=phase, role=role):
                    self._restarts[phase, role] = self._restarts.get((phase, role), 0) + 1
                case PhaseFinished(phase=phase, seconds=seconds):
                    self._live.pop(phase, None)
                    self._snapshots.pop(phase, None)
                    self._finished[phase] = seconds
                case RunFinished():
                    self._live.clear()
                    self._done = True
                case _:
                    pass

    def serve(self, port: int, address: str = "127.0.0.1") -> Server:
        """Answers scrapes on `port` (0: a free one) until `close`; the thread is prometheus-client's.

        Raises:
            ConfigError: the port is taken, or the address is not this machine's.
        """
        try:
            self._endpoint = start_http_server(port, addr=address, registry=self.registry)
        except OSError as e:
            raise ConfigError(
                f"cannot listen on {address}:{port}: {e.strerror or e}",
                where="monitor",
                mend="set monitor.port: 0 for a free port, or null for none",
            ) from e
        return Server(address, int(self._endpoint[0].server_port))

    def render(self) -> bytes:
        """What a scrape would get now, in the text format."""
        return bytes(generate_latest(self.registry))

    def close(self) -> None:
        """Ends the endpoint; may be called twice, and without `serve`."""
        if self._endpoint is not None:
            server, thread = self._endpoint
            self._endpoint = None
            server.shutdown()
            server.server_close()
            thread.join()

    def describe(self) -> list[Metric]:
        return []  # names are known only with their series; without this, registering would collect

    def collect(self) -> Iterator[Metric]:
        families = {name: _FAMILIES[row.kind](name, row.help, labels=row.labels) for name, row in METRICS.items()}

        def add(name: str, value: float, *labels: object) -> None:
            families[name].add_metric([self._run, *map(str, labels)], value)

        with self._lock:
            for phase, progress in self._live.items():
                self._of_phase(add, phase, progress)
                self._of_shards(add, families["psdevise_push_lag"], phase, progress)
            for phase, (count, seconds, written) in self._snapshots.items():
                add("psdevise_snapshots", count, phase)
                add("psdevise_snapshot_duration_seconds", seconds, phase)
                add("psdevise_snapshot_timestamp_seconds", written, phase)
            for (phase, role), restarts in self._restarts.items():
                add("psdevise_restarts", restarts, phase, role)
            for phase, seconds in self._finished.items():
                add("psdevise_phase_seconds", seconds, phase)
            add("psdevise_run_finished", float(self._done))
        add("psdevise_build_info", 1.0, _version(), platform.python_version())
        yield from families.values()

    def _of_phase(self, add: Callable[..., None], phase: str, progress: Progress) -> None:
        add("psdevise_progress_ratio", progress.done, phase)
        add("psdevise_workers_alive", progress.workers, phase)
        if progress.loss is not None:
            add("psdevise_loss", progress.loss, phase)
        for worker in progress.figures:
            add("psdevise_steps", worker.steps, phase, worker.worker)
            for name, counter in WORKER_COUNTERS.items():
                if counter in worker.counters:
                    add(name, worker.counters[counter], phase, worker.worker)
            for name, gauge in WORKER_GAUGES.items():
                if gauge in worker.gauges:
                    add(name, worker.gauges[gauge], phase, worker.worker)
        # The schedule is the phase's; a worker reports the one of its last step, so the furthest is the phase's.
        rates = [(w.steps, w.gauges["rate"]) for w in progress.figures if "rate" in w.gauges]
        if rates:
            add("psdevise_learning_rate_multiplier", max(rates)[1], phase)

    def _of_shards(self, add: Callable[..., None], lags: Any, phase: str, progress: Progress) -> None:
        for rank, shard in enumerate(progress.shards):
            incarnation, updates = shard["version"]
            add("psdevise_shard_incarnation", incarnation, phase, rank)
            add("psdevise_shard_version", updates, phase, rank)
            if "update_seconds" in shard:
                add("psdevise_shard_update_seconds", shard["update_seconds"], phase, rank)
            for outcome, count in shard["counts"].items():
                add("psdevise_pushes", count, phase, rank, outcome)
            found = {int(lag): count for lag, count in shard["lags"].items()}
            total = float(sum(lag * count for lag, count in found.items()))
            lags.add_metric([self._run, phase, str(rank)], buckets(found), total)


def buckets(lags: dict[int, int]) -> list[tuple[str, float]]:
    """(upper bound, pushes with a lag of at most that), as Prometheus' histograms are cumulative."""
    below = [(str(float(b)), float(sum(n for lag, n in lags.items() if lag <= b))) for b in LAG_BUCKETS]
    return [*below, ("+Inf", float(sum(lags.values())))]


def _version() -> str:
    try:
        return metadata.version("psdevise")
    except metadata.PackageNotFoundError:
        return "not installed"
