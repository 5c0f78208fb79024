"""A real Prometheus scrapes a real run on Ray: its figures, its dashboard, its alerts; and promtool on all files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from psdevise.errors import Interrupted
from psdevise.events import Event, PhaseStarted, Progress, RunStarted
from psdevise.monitor import Monitor
from psdevise.runtime.job import ClusterOptions
from psdevise.runtime.training import OnRay
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask
from tests import toy
from tests.monitor.server import ROOT, Prometheus, prometheus
from tests.runtime.test_keystones import job

SECONDS = 40.0  # over which throughput is compared: one report more or less (about a second) is within the tolerance
SCRAPED = 0.4  # seconds after which an event has been scraped, and before which no other comes
DASHBOARD = ROOT / "grafana/dashboards/psdevise.json"


def promtool(*arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["promtool", *arguments], input=given, capture_output=True, timeout=60, check=False)


@pytest.mark.prometheus
def test_promtool_accepts_configuration_and_rules_and_their_unit_tests_pass() -> None:
    # The check of the configuration takes the files of rules along.
    for command in (("check", "config", "prometheus.yml"), ("test", "rules", "tests.yml")):
        done = promtool(*command[:2], str(ROOT / "prometheus" / command[2]))
        assert done.returncode == 0, (done.stdout + done.stderr).decode()


def endless_task() -> ModuleTask:
    return toy.task(epochs=100_000)


@dataclass
class Trained:
    """A run under way in a thread of this process, and what it says of itself."""

    monitor: Monitor
    counts: list[tuple[float, float]] = field(default_factory=list)  # (Unix time, examples of all workers)
    last: Progress | None = None
    seen: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, event: Event) -> None:
        self.monitor(event)
        if isinstance(event, Progress):
            with self.seen:
                self.counts.append((time.time(), event.count))
                self.last = event
                self.seen.notify_all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[tuple[Trained, Prometheus]]:
    folder = tmp_path_factory.mktemp("prometheus")
    monitor = Monitor("e2e", folder=str(folder))
    trained, interrupt = Trained(monitor), threading.Event()
    made = job(
        folder,
        endless_task,
        downpour=DownpourOptions(),
        cluster=ClusterOptions(num_workers=2, num_shards=2, snapshot_seconds=2.0, lease_seconds=120.0),
    )
    target = folder / "e2e.json"
    target.write_text(json.dumps([{"targets": [monitor.serve(0).target], "labels": {}}]))

    def train() -> None:
        with pytest.raises(Interrupted):
            OnRay().train(made, trained, interrupt)

    for event in (RunStarted("e2e", ("toy",)), PhaseStarted("toy")):
        trained(event)
    thread = threading.Thread(target=train)
    with prometheus(folder, str(folder / "*.json")) as server:
        thread.start()
        try:
            with trained.seen:
                assert trained.seen.wait_for(lambda: trained.last is not None and trained.last.count > 0, timeout=150)
            yield trained, server
        finally:
            interrupt.set()
            thread.join(timeout=60)
            monitor.close()
    assert not thread.is_alive()


@pytest.mark.prometheus
@pytest.mark.ray
class TestOfARun:
    def test_the_sum_of_rates_is_the_runs_own_throughput(self, run: tuple[Trained, Prometheus]) -> None:
        trained, server = run
        with trained.seen:
            begin, first = trained.counts[-1]
            assert trained.seen.wait_for(lambda: trained.counts[-1][0] > begin + SECONDS + 1, timeout=90)
            end, last = next(c for c in trained.counts if c[0] > begin + SECONDS)
        own, window = (last - first) / (end - begin), f"{int(1000 * (end - begin))}ms"
        for counter in ("psdevise_examples_total", "psdevise_units_total"):
            assert server.value(f"sum(rate({counter}[{window}]))", at=end + SCRAPED) == pytest.approx(own, rel=0.05)

    def test_every_query_of_the_dashboard_returns_data(self, run: tuple[Trained, Prometheus]) -> None:
        _, server = run
        for panel, expression in queries():
            server.until(f"{panel}: {expression}", lambda expression=expression: server.query(filled(expression)))
        for annotation in json.loads(DASHBOARD.read_text())["annotations"]["list"]:
            server.query(filled(annotation["expr"]))  # a refused expression raises

    def test_a_stopped_worker_stalls_and_goes_on(self, run: tuple[Trained, Prometheus]) -> None:
        trained, server = run
        assert trained.last is not None
        pid = int(next(w for w in trained.last.figures if w.worker == 1).gauges["pid"])
        server.until("calm before", lambda: not server.alerts("PsdeviseWorkerStalled"))
        os.kill(pid, signal.SIGSTOP)
        try:
            (labels,) = server.until("fires", lambda: server.alerts("PsdeviseWorkerStalled"))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (labels["run"], labels["phase"], labels["worker"]) == ("e2e", "toy", "1")
        server.until("resolves", lambda: not server.alerts("PsdeviseWorkerStalled"))

    def test_promtool_accepts_the_exposition(self, run: tuple[Trained, Prometheus]) -> None:
        done = promtool("check", "metrics", given=run[0].monitor.render())
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def queries() -> list[tuple[str, str]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [(p["title"], t["expr"]) for p in panels for t in p.get("targets", ())]


def filled(expression: str) -> str:
    return expression.replace("$run", "e2e").replace("$phase", ".*").replace("$__rate_interval", "5s")
