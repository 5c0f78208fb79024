"""One /metrics endpoint per run: the event stream as Prometheus series.

Names, kinds and help texts stand in one table, METRICS, from which docs and tests are made. Values are read
from the last events when a scrape comes, so series of workers and phases that have ended end with them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
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


WORKER = ("run", "phase", "worker")
SHARD = ("run", "phase", "shard")
METRICS: dict[str, Row] = {
    "psdevise_examples": Row("counter", "Examples whose gradients a worker has pushed", WORKER),
    "psdevise_words": Row("counter", "Words of text that a worker has trained on", WORKER),
    "psdevise_steps": Row("counter", "Steps of a worker", WORKER),
    "psdevise_compute_seconds": Row("counter", "Seconds a worker has computed", WORKER),
    "psdevise_wire_seconds": Row("counter", "Seconds a worker has sent, or waited for shards", WORKER),
    "psdevise_read_seconds": Row("counter", "Seconds a worker has waited for data", WORKER),
    "psdevise_pulled_bytes": Row("counter", "Bytes of parameters fetched by a worker", WORKER),
    "psdevise_pushed_bytes": Row("counter", "Bytes of gradients pushed by a worker", WORKER),
    "psdevise_in_flight_bytes": Row("gauge", "Bytes of pushes that wait for their answers", WORKER),
    "psdevise_worker_lag": Row("gauge", "Updates between a worker's last fetch and its push", WORKER),
    "psdevise_lag": Row("histogram", "Updates that a shard had applied since a push's fetch", SHARD),
    "psdevise_shard_updates": Row("counter", "Updates of a shard", SHARD),
    "psdevise_shard_update_seconds": Row("counter", "Seconds a shard has spent in pushes", SHARD),
    "psdevise_pushes": Row("counter", "Pushes by what became of them", (*SHARD, "outcome")),
    "psdevise_loss": Row("gauge", "Mean loss over the last seconds", ("run", "phase")),
    "psdevise_learning_rate_multiplier": Row(
        "gauge", "Schedule's multiplier of the learning rate", ("run", "phase")
    ),
    "psdevise_workers": Row("gauge", "Workers alive", ("run", "phase")),
    "psdevise_progress_ratio": Row("gauge", "Share of the phase that is finished", ("run", "phase")),
    "psdevise_snapshots": Row("counter", "Snapshots written", ("run", "phase")),
    "psdevise_snapshot_seconds": Row("gauge", "Seconds the last snapshot took", ("run", "phase")),
    "psdevise_restarts": Row("counter", "Deaths of workers and shards", ("run", "phase", "role")),
    "psdevise_phase_seconds": Row("gauge", "Seconds a finished phase took", ("run", "phase")),
    "psdevise_run_finished": Row("gauge", "1 once the run has ended well", ("run",)),
}
_WORKER_COUNTERS = {
    "psdevise_examples": "examples",
    "psdevise_words": "words",
    "psdevise_steps": "steps",
    "psdevise_compute_seconds": "compute_seconds",
    "psdevise_wire_seconds": "wire_seconds",
    "psdevise_read_seconds": "read_seconds",
    "psdevise_pulled_bytes": "bytes_pulled",
    "psdevise_pushed_bytes": "bytes_pushed",
}
LAG_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100)


class Monitor(Collector):
    """A listener of the event stream with a registry of its own."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._live: dict[str, Progress] = {}
        self._snapshots: dict[str, tuple[int, float]] = {}
        self._restarts: dict[tuple[str, str], int] = {}
        self._finished: dict[str, float] = {}
        self._done = False
        self._server: Any = None
        self.port: int | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case Progress(phase=phase):
                    self._live[phase] = event
                case PhaseStarted(phase=phase):
                    self._live.setdefault(phase, Progress(phase, 0.0))
                case SnapshotWritten(phase, _, seconds):
                    self._snapshots[phase] = (self._snapshots.get(phase, (0, 0.0))[0] + 1, seconds)
                case Restarted(phase=phase, role=role):
                    self._restarts[phase, role] = self._restarts.get((phase, role), 0) + 1
                case PhaseFinished(phase=phase, seconds=seconds):
                    self._live.pop(phase, None)
                    self._finished[phase] = seconds
                case RunFinished():
                    self._done = True
                case _:
                    pass

    def serve(self, port: int, address: str = "127.0.0.1") -> int:
        """Listens on `port` (0: a free one) and returns it; /metrics is all there is.

        Raises:
            ConfigError: the port is taken.
        """
        try:
            self._server, _ = start_http_server(port, addr=address, registry=self.registry)
        except OSError as e:
            raise ConfigError(
                f"cannot listen on {address}:{port}: {e.strerror}",
                where="monitor.port",
                mend="set monitor.port: 0 for a free port, or null for none",
            ) from e
        self.port = int(self._server.server_port)
        return self.port

    def render(self) -> bytes:
        """The exposition as a scrape would get it."""
        return bytes(generate_latest(self.registry))

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = {name: _family(name, row) for name, row in METRICS.items()}
            for phase, progress in self._live.items():
                self._of_phase(families, phase, progress)
            for phase, (count, seconds) in self._snapshots.items():
                families["psdevise_snapshots"].add_metric([self._run, phase], count)
                families["psdevise_snapshot_seconds"].add_metric([self._run, phase], seconds)
            for (phase, role), restarts in self._restarts.items():
                families["psdevise_restarts"].add_metric([self._run, phase, role], restarts)
            for phase, seconds in self._finished.items():
                families["psdevise_phase_seconds"].add_metric([self._run, phase], seconds)
            families["psdevise_run_finished"].add_metric([self._run], float(self._done))
        yield from families.values()

    def _of_phase(self, families: dict[str, Any], phase: str, progress: Progress) -> None:
        labels = [self._run, phase]
        families["psdevise_progress_ratio"].add_metric(labels, progress.done)
        families["psdevise_workers"].add_metric(labels, progress.workers)
        if progress.loss is not None:
            families["psdevise_loss"].add_metric(labels, progress.loss)
        for figures in progress.figures:
            own = [*labels, str(figures.worker)]
            for name, counter in _WORKER_COUNTERS.items():
                if counter in figures.counters:
                    families[name].add_metric(own, figures.counters[counter])
            for name, gauge in (
                ("psdevise_worker_lag", "lag"),
                ("psdevise_in_flight_bytes", "in_flight_bytes"),
            ):
                if gauge in figures.gauges:
                    families[name].add_metric(own, figures.gauges[gauge])
        if progress.figures and "rate" in progress.figures[0].gauges:
            families["psdevise_learning_rate_multiplier"].add_metric(
                labels, progress.figures[0].gauges["rate"]
            )
        for rank, shard in enumerate(progress.shards):
            own = [*labels, str(rank)]
            families["psdevise_shard_updates"].add_metric(own, shard["version"][1])
            families["psdevise_shard_update_seconds"].add_metric(own, shard.get("update_seconds", 0.0))
            for outcome, count in shard["counts"].items():
                families["psdevise_pushes"].add_metric([*own, outcome], count)
            buckets, total = _buckets({int(lag): n for lag, n in shard["lags"].items()})
            families["psdevise_lag"].add_metric(own, buckets, total)


def _family(name: str, row: Row) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return kinds[row.kind](name, row.help, labels=row.labels)


def _buckets(lags: dict[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts per bucket, and the sum of all lags."""
    found = [(str(float(b)), float(sum(n for lag, n in lags.items() if lag <= b))) for b in LAG_BUCKETS]
    found.append(("+Inf", float(sum(lags.values()))))
    return found, float(sum(lag * n for lag, n in lags.items()))
