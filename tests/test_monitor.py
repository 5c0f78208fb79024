from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from psdevise.errors import ConfigError
from psdevise.events import (
    PhaseFinished,
    PhaseStarted,
    Progress,
    Restarted,
    RunFinished,
    RunStarted,
    SnapshotWritten,
    WorkerFigures,
    from_plain,
    to_plain,
)
from psdevise.monitor import LAG_BUCKETS, METRICS, WORKER_COUNTERS, Monitor

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]

COUNTERS = {name: 10.0 + i for i, name in enumerate(WORKER_COUNTERS.values())}
GAUGES = {"lag": 3.0, "rate": 0.25, "in_flight_bytes": 512.0}
SHARD = {
    "version": (4, 90),
    "counts": {"applied": 90, "repeated": 2, "too_stale": 3, "bad_gradient": 1},
    "lags": {0: 10, 1: 50, 3: 30, 7: 4, 250: 1},
    "update_seconds": 1.5,
    "peak_bytes": 1e9,
}
PROGRESS = Progress(
    "visual",
    0.5,
    loss=1.25,
    workers=2,
    figures=(WorkerFigures(0, 90, COUNTERS, GAUGES), WorkerFigures(1, 80, COUNTERS, GAUGES | {"rate": 0.5})),
    shards=(SHARD, SHARD),
)


def read(monitor: Monitor) -> Values:
    return values(monitor.render().decode())


def values(text: str) -> Values:
    return {
        (sample.name, frozenset((k, v) for k, v in sample.labels.items() if k != "run")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(found: Values, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.fixture
def monitor() -> Monitor:
    monitor = Monitor("test", clock=lambda: 1234.5)
    for event in (RunStarted("test", ("visual",)), PhaseStarted("visual"), PROGRESS):
        monitor(event)
    return monitor


def test_workers(monitor: Monitor) -> None:
    found = read(monitor)
    for worker in "01":
        for name, counter in WORKER_COUNTERS.items():
            assert at(found, f"{name}_total", phase="visual", worker=worker) == COUNTERS[counter]
        assert at(found, "psdevise_lag", phase="visual", worker=worker) == 3
        assert at(found, "psdevise_in_flight_bytes", phase="visual", worker=worker) == 512
    assert at(found, "psdevise_steps_total", phase="visual", worker="1") == 80


def test_a_phase(monitor: Monitor) -> None:
    found = read(monitor)
    assert at(found, "psdevise_loss", phase="visual") == 1.25
    assert at(found, "psdevise_workers_alive", phase="visual") == 2
    assert at(found, "psdevise_progress_ratio", phase="visual") == 0.5
    assert at(found, "psdevise_learning_rate_multiplier", phase="visual") == 0.25  # of the worker that is ahead


def test_shards(monitor: Monitor) -> None:
    found = read(monitor)
    for shard in "01":
        own = {"phase": "visual", "shard": shard}
        assert at(found, "psdevise_shard_version", **own) == 90
        assert at(found, "psdevise_shard_incarnation", **own) == 4
        assert at(found, "psdevise_pushes_total", outcome="too_stale", **own) == 3
        assert at(found, "psdevise_pushes_total", outcome="repeated", **own) == 2
        lags = SHARD["lags"]
        assert isinstance(lags, dict)
        for bound in LAG_BUCKETS:
            below = sum(n for lag, n in lags.items() if lag <= bound)
            assert at(found, "psdevise_push_lag_bucket", le=str(float(bound)), **own) == below
        assert at(found, "psdevise_push_lag_bucket", le="+Inf", **own) == 95
        assert at(found, "psdevise_push_lag_count", **own) == 95
        assert at(found, "psdevise_push_lag_sum", **own) == sum(lag * n for lag, n in lags.items())


def test_figures_are_the_same_after_the_journal(monitor: Monitor) -> None:
    """JSON turns lags into text and tuples into lists."""
    again = Monitor("test")
    again(PhaseStarted("visual"))
    event = from_plain(json.loads(json.dumps(to_plain(PROGRESS))))
    assert event is not None
    again(event)
    assert read(again) == read(monitor)


def test_counters_are_absolute_and_a_new_worker_counts_from_zero(monitor: Monitor) -> None:
    for _ in range(3):
        monitor(PROGRESS)
    assert at(read(monitor), "psdevise_examples_total", phase="visual", worker="0") == COUNTERS["examples"]
    monitor(replace(PROGRESS, figures=(WorkerFigures(0, 1, {"examples": 1.0}, {}),)))
    assert at(read(monitor), "psdevise_examples_total", phase="visual", worker="0") == 1


def test_series_end_with_their_worker_and_phase(monitor: Monitor) -> None:
    monitor(replace(PROGRESS, workers=1, figures=PROGRESS.figures[:1]))
    assert at(read(monitor), "psdevise_examples_total", phase="visual", worker="1") is None
    monitor(PhaseFinished("visual", 12.0))
    found = read(monitor)
    assert {name for name, labels in found if ("phase", "visual") in labels} == {"psdevise_phase_seconds"}
    assert at(found, "psdevise_phase_seconds", phase="visual") == 12


def test_two_phases_at_the_same_time(monitor: Monitor) -> None:
    monitor(PhaseStarted("language", "words"))
    monitor(replace(PROGRESS, phase="language", loss=4.0))
    found = read(monitor)
    assert at(found, "psdevise_loss", phase="language") == 4.0
    assert at(found, "psdevise_loss", phase="visual") == 1.25


def test_snapshots_restarts_and_the_end(monitor: Monitor) -> None:
    monitor(SnapshotWritten("visual", 7, 0.25))
    monitor(SnapshotWritten("visual", 8, 0.5))
    for role, rank in (("worker", 0), ("worker", 1), ("shard", 0)):
        monitor(Restarted("visual", role, rank, 9, "died"))
    found = read(monitor)
    assert at(found, "psdevise_snapshots_total", phase="visual") == 2
    assert at(found, "psdevise_snapshot_duration_seconds", phase="visual") == 0.5
    assert at(found, "psdevise_snapshot_timestamp_seconds", phase="visual") == 1234.5
    assert at(found, "psdevise_restarts_total", phase="visual", role="worker") == 2
    assert at(found, "psdevise_restarts_total", phase="visual", role="shard") == 1
    assert at(found, "psdevise_run_finished") == 0
    monitor(RunFinished("test", 1.0))
    assert at(read(monitor), "psdevise_run_finished") == 1


def test_the_table_is_what_is_exposed(monitor: Monitor) -> None:
    monitor(SnapshotWritten("visual", 7, 0.25))
    monitor(Restarted("visual", "worker", 0, 9, "died"))
    monitor(PhaseFinished("earlier", 1.0))
    families = list(text_string_to_metric_families(monitor.render().decode()))
    assert {f.name: f.documentation for f in families} == {name: row.help for name, row in METRICS.items()}
    for family in families:
        row = METRICS[family.name]
        assert family.type == row.kind
        assert family.samples, f"{family.name} has no series"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(row.labels)
            assert sample.labels["run"] == "test"


def test_names_follow_the_conventions() -> None:
    for name, row in METRICS.items():
        assert re.fullmatch(r"psdevise(_[a-z]+)+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert row.help.endswith(".")
        assert set(row.labels) <= {"run", "phase", "worker", "shard", "role", "outcome", "version", "python"}


def test_a_run_that_has_not_begun() -> None:
    assert at(read(Monitor("test")), "psdevise_run_finished") == 0


def test_two_runs_in_one_process_do_not_meet(monitor: Monitor) -> None:
    assert b"psdevise_loss{" not in Monitor("another").render()


def test_promtool_finds_nothing_to_say(monitor: Monitor) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool, of Debian's package prometheus")
    monitor(SnapshotWritten("visual", 7, 0.25))
    monitor(Restarted("visual", "worker", 0, 9, "died"))
    done = subprocess.run(["promtool", "check", "metrics"], input=monitor.render(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def served(monitor: Monitor) -> Iterator[tuple[Monitor, str]]:
    try:
        yield monitor, monitor.serve(0).url
    finally:
        monitor.close()


def test_the_endpoint(served: tuple[Monitor, str]) -> None:
    monitor, url = served
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert values(answer.read().decode()) == read(monitor)
    assert url.startswith("http://127.0.0.1:")


def test_the_endpoint_ends(monitor: Monitor) -> None:
    server = monitor.serve(0)
    monitor.close()
    monitor.close()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind((server.address, server.port))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}") as error:
            Monitor("test").serve(port)
    assert "monitor.port: 0" in error.value.mend


@pytest.mark.prometheus
def test_prometheus_scrapes_the_run(served: tuple[Monitor, str], tmp_path: Path) -> None:
    _, url = served
    target = urllib.parse.urlsplit(url).netloc
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: psdevise, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            query = f"http://127.0.0.1:{port}/api/v1/query?"
            assert await_value(query, 'psdevise_examples_total{worker="0"}', server) == COUNTERS["examples"]
            assert await_value(query, "sum(psdevise_workers_alive)", server) == 2
            quantile = "histogram_quantile(0.5, sum by (le) (psdevise_push_lag_bucket))"
            assert 0 < await_value(query, quantile, server) <= 1
        finally:
            server.terminate()
            server.wait(timeout=20)


def await_value(query: str, expression: str, server: subprocess.Popen[bytes], seconds: float = 60.0) -> float:
    """The first answer that holds a value; fails when the server has ended or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.poll() is None, "prometheus has ended"
        try:
            with urllib.request.urlopen(query + urllib.parse.urlencode({"query": expression}), timeout=5) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except OSError:
            found = []
        if found:
            return float(found[0]["value"][1])
        time.sleep(0.1)  # polling a process of its own; the deadline is above
    raise AssertionError(f"{expression} has no value after {seconds:g} s")
