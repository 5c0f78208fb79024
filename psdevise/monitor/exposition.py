"""One /metrics endpoint per run: the event stream as Prometheus series.

Names, kinds, labels and help texts stand in `table`. Values are read from the last events when a scrape comes,
so counters are absolute and the series of workers and phases that have ended end with them.
A worker or shard that was replaced counts from zero again, which Prometheus' rate() takes for a reset.
"""

from __future__ import annotations

import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, NamedTuple

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
from psdevise.monitor.table import (
    LAG_BUCKETS,
    METRICS,
    SHARD_FIGURES,
    STEP_SECONDS,
    WORKER_COUNTERS,
    WORKER_GAUGES,
)

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


class Server(NamedTuple):
    """Where /metrics is answered."""

    address: str
    port: int

    @property
    def target(self) -> str:
        """host:port, as Prometheus names it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.target}/metrics"


class Monitor(Collector):
    """A listener of the event stream with a registry of its own.

    Args:
        run: value of the label `run` on every series.
        clock: Unix time, for when a phase began and a snapshot was written.
        folder: a local folder whose disk is watched, or None.
    """

    def __init__(self, run: str, clock: Callable[[], float] = time.time, folder: str | None = None) -> None:
        self._run, self._clock, self._folder = run, clock, folder
        self._lock = threading.Lock()  # events and scrapes come from different threads
        self._live: dict[str, Progress] = {}
        self._started: dict[str, tuple[float, str]] = {}  # phase → (Unix time, unit)
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
                case PhaseStarted(phase=phase, unit=unit):
                    self._live[phase] = Progress(phase, 0.0)
                    self._started[phase] = (self._clock(), unit)
                    for role in ("worker", "shard"):  # from zero, so that the first death is an increase
                        self._restarts.setdefault((phase, role), 0)
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
                    self._restarts = {key: n for key, n in self._restarts.items() if key[0] != phase}
                    self._finished[phase] = seconds
                case RunFinished():
                    self._live.clear()
                    self._snapshots.clear()
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
        if self._folder is not None:
            disk = shutil.disk_usage(self._folder)
            add("psdevise_disk_bytes", disk.total)
            add("psdevise_disk_free_bytes", disk.free)
        add("psdevise_build_info", 1.0, _version(), platform.python_version())
        yield from families.values()

    def _of_phase(self, add: Callable[..., None], phase: str, progress: Progress) -> None:
        add("psdevise_progress_ratio", progress.done, phase)
        add("psdevise_workers_alive", progress.workers, phase)
        add("psdevise_leases", progress.leases, phase)
        add("psdevise_epoch", progress.epoch, phase)
        if phase in self._started:
            began, unit = self._started[phase]
            add("psdevise_phase_start_timestamp_seconds", began, phase)
            add("psdevise_units", progress.count, phase, unit)
        for name, value in {
            "psdevise_loss": progress.loss,
            "psdevise_left_seconds": progress.left,
            "psdevise_learning_rate": progress.learning_rate,
        }.items():
            if value is not None:
                add(name, value, phase)
        for state, examples in progress.audit.items():
            add("psdevise_slice_examples", examples, phase, state)
        for worker in progress.figures:
            add("psdevise_steps", worker.steps, phase, worker.worker)
            timed = "compute_seconds" in worker.counters  # one that never had to wait has not counted it
            counters = {"idle_seconds": 0.0} | worker.counters if timed else worker.counters
            for name, counter in WORKER_COUNTERS.items():
                if counter in counters:
                    add(name, counters[counter], phase, worker.worker)
            parts = [worker.counters[part] for part in STEP_SECONDS if part in worker.counters]
            if parts:
                add("psdevise_step_seconds", sum(parts), phase, worker.worker)
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
            for name, figure in SHARD_FIGURES.items():
                if figure in shard:
                    add(name, shard[figure], phase, rank)
            for outcome, count in ({"applied": 0} | shard["counts"]).items():
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
