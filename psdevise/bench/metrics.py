"""What the metrics cost: CPU of a scrape, its share of a step, and throughput with and without scraping.

A scrape is a real GET of a run with 16 workers and 8 shards, made by a process of its own, so that the process CPU
clock of this one holds the answering side only. The bound is 10 ms of CPU; scraped each second, that is 1 % of a core.
What the coordinator pays for a step's report is set against the CPU of the step itself. Throughput: a small model in
this process, where the endpoint's thread and the training share one interpreter lock, which is the worst case; rounds
with a scrape each second beside rounds without.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from psdevise.bench import machine
from psdevise.bench.rounds import Rounds, median, paired
from psdevise.bench.table import Context, Row
from psdevise.errors import BenchmarkFailed
from psdevise.events import Event, PhaseStarted, Progress, WorkerFigures
from psdevise.monitor import Monitor
from psdevise.monitor.table import SHARD_FIGURES, WORKER_COUNTERS, WORKER_GAUGES
from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import ClusterOptions, Job
from psdevise.server.coordinator import Coordinator
from psdevise.server.ledger import Ledger
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask, of_mean

WORKERS, SHARDS = 16, 8
SCRAPES, REPORTS = 20, 2000
FEATURES, HIDDEN, BATCH, SLICES = 256, 512, 64, 40

# The scraper: reads the URL a number of times, so many seconds apart (0: at once), and says when each was there.
SCRAPER = """
import sys, time, urllib.request
url, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for _ in range(count):
    urllib.request.urlopen(url, timeout=60).read()
    print("scraped", flush=True)
    time.sleep(pause)
"""


def run(context: Context) -> list[Row]:
    rounds = 12 if context.full else 6
    turns = rounds + 1 + 2 * rounds
    context.on_progress(0, turns, "CPU per scrape")
    scrapes = [_cpu_per_scrape() for _ in range(rounds)]
    context.on_progress(rounds, turns, "CPU per report")
    reports = [_cpu_per_report() for _ in range(rounds)]
    steps: list[float] = []
    errors = {"scraped": 0, "not scraped": 0}

    def turn(scraped: bool) -> float:
        found = _train(scraped, 120 if context.full else 40)
        steps.append(found.cpu_per_step)
        errors["scraped" if scraped else "not scraped"] += found.errors
        return found.examples_per_second

    done = paired(
        {"scraped": lambda number: turn(True), "not scraped": lambda number: turn(False)},
        rounds,
        lambda n: context.on_progress(rounds + 1 + n, turns, "throughput"),
    )
    rows = machine.figures("metrics")
    case = f"{WORKERS} workers, {SHARDS} shards"
    rows.append(Row("metrics", case, "a scrape", "cpu_per_scrape", *median([1e3 * s for s in scrapes]), "ms"))
    rows.append(Row("metrics", case, "a scrape each second", "share_of_core", *median([100 * s for s in scrapes]), "%"))
    rows.append(Row("metrics", case, "a step's report", "cpu_per_report", *median([1e3 * r for r in reports]), "ms"))
    step = float(np.median(steps))
    rows.append(
        Row("metrics", case, "a step's report", "share_of_step", *median([100 * r / step for r in reports]), "%")
    )
    both = Rounds(done.values, errors)
    return rows + both.rows("metrics", "scraped each second", "examples_per_second", "1/s", "not scraped")


# ---------------------------------------------------------------------- a scrape, a report


def progress() -> Progress:
    """A run with all series that there can be."""
    counters = dict.fromkeys(WORKER_COUNTERS.values(), 1234.5)
    gauges = dict.fromkeys(WORKER_GAUGES.values(), 2.0) | {"rate": 0.5}
    shard = {
        "version": (3, 9000),
        "counts": dict.fromkeys(("applied", "repeated", "too_stale", "bad_gradient", "unknown_version"), 7),
        "lags": {lag: 10 for lag in range(200)},
    } | dict.fromkeys(SHARD_FIGURES.values(), 1.5)
    return Progress(
        "visual",
        0.5,
        count=1e6,
        loss=1.0,
        workers=WORKERS,
        left=10.0,
        audit={"finished": 1, "repeated": 1, "refused": 1},
        learning_rate=0.01,
        figures=tuple(WorkerFigures(rank, 1000, counters, gauges) for rank in range(WORKERS)),
        shards=(shard,) * SHARDS,
    )


def _cpu_per_scrape() -> float:
    """Seconds of this process's CPU per scrape."""
    monitor = Monitor("bench", folder=".")
    monitor(PhaseStarted("visual"))
    monitor(progress())
    url = monitor.serve(0).url
    try:
        with _scraper(url, SCRAPES + 1, 0.0) as scraper:
            assert scraper.stdout is not None
            scraper.stdout.readline()  # the first finds cold code
            begin = time.process_time()
            scraper.wait(timeout=60)
            return (time.process_time() - begin) / SCRAPES
    finally:
        monitor.close()


def _cpu_per_report() -> float:
    """Seconds of CPU for what a worker tells the coordinator after a step."""
    coordinator = Coordinator(Ledger([(0, 10)], 1, 0, 60.0), None)
    coordinator.join(0, 1, 0.0)
    figures = {"examples": 64.0, "loss": 1.0, "steps": 1.0, "bytes_pulled": 1e6, "bytes_pushed": 1e6}
    gauges = {"lag": 1.0, "rate": 0.5, "in_flight_bytes": 0.0}
    begin = time.process_time()
    for _ in range(REPORTS):
        coordinator.report(0, 1, dict(figures), dict(gauges), 1.0)
    return (time.process_time() - begin) / REPORTS


@contextmanager
def _scraper(url: str, count: int, pause: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SCRAPER, url, str(count), str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


# ---------------------------------------------------------------------- throughput


class _Turn:
    def __init__(self, examples_per_second: float, cpu_per_step: float, errors: int) -> None:
        self.examples_per_second, self.cpu_per_step, self.errors = examples_per_second, cpu_per_step, errors


def _loss(
    model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor], rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    x, y = batch
    value = torch.nn.functional.cross_entropy(model(x), y)
    return of_mean(value, len(y))


def _read(start: int, stop: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for _ in range(start, stop, BATCH):
        x = torch.from_numpy(rng.standard_normal((BATCH, FEATURES), dtype=np.float32))
        yield x, (x[:, 0] > 0).long()


def _train(scraped: bool, epochs: int) -> _Turn:
    """Two workers in turn in this process; with `scraped` another process scrapes them each second."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = SLICES * 2 * BATCH
    slices = [(i * 2 * BATCH, (i + 1) * 2 * BATCH) for i in range(SLICES)]

    def build() -> ModuleTask:
        module = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, HIDDEN),
            torch.nn.Linear(HIDDEN, 2),
        )
        return ModuleTask(module, _loss, _read, slices, epochs)

    monitor = Monitor("bench", folder=".")
    url = monitor.serve(0).url
    seen: list[float] = []

    def on_event(event: Event) -> None:
        monitor(event)
        if isinstance(event, Progress):
            seen.append(event.count)

    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            run="bench",
            phase="visual",
            build=build,
            snapshots=f"{folder}/snapshots",
            incarnations=f"{folder}/incarnations.json",
            seed=0,
            phase_number=1,
            cluster=ClusterOptions(host="inprocess", num_workers=2, snapshot_seconds=1e9, snapshot_share=1.0),
            downpour=DownpourOptions(),
            optimizer=OptimizerOptions(),
        )
        monitor(PhaseStarted("visual"))
        try:
            with _scraper(url, 10_000 if scraped else 0, 1.0) as scraper:
                if scraped and scraper.stdout is not None and scraper.stdout.readline() != "scraped\n":
                    raise BenchmarkFailed("the endpoint does not answer", where="bench metrics")
                begin, cpu = time.perf_counter(), time.process_time()
                trained = InProcess().train(job, on_event, threading.Event())
                seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        finally:
            monitor.close()
    wanted = rows * epochs
    errors = int(trained.audit["finished"] != wanted) + int(not seen or seen[-1] != wanted)
    return _Turn(wanted / seconds, cpu / (wanted / BATCH), errors)
