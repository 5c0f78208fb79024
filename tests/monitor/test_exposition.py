from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
from psdevise.monitor import Monitor
from psdevise.monitor.table import LAG_BUCKETS, METRICS, WORKER_COUNTERS, WORKER_GAUGES, page

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]

COUNTERS = {name: 10.0 + i for i, name in enumerate(WORKER_COUNTERS.values())}
GAUGES = {"lag": 3.0, "rate": 0.25, "in_flight_bytes": 512.0, "queue": 4.0, "silent_seconds": 0.5}
SHARD = {
    "version": (4, 90),
    "counts": {"applied": 90, "repeated": 2, "too_stale": 3, "bad_gradient": 1},
    "lags": {0: 10, 1: 50, 3: 30, 7: 4, 250: 1},
    "update_seconds": 1.5,
    "bytes": 4096,
    "accumulator_norm": 7.5,
    "peak_bytes": 1e9,
}
PROGRESS = Progress(
    "visual",
    0.5,
    count=640.0,
    loss=1.25,
    workers=2,
    epoch=3,
    left=20.0,
    leases=2,
    audit={"finished": 600, "repeated": 8, "refused": 4},
    learning_rate=0.0025,
    figures=(WorkerFigures(0, 90, COUNTERS, GAUGES), WorkerFigures(1, 80, COUNTERS, GAUGES | {"rate": 0.5})),
    shards=(SHARD, SHARD),
)


LABELS = {"run", "phase", "worker", "shard", "role", "outcome", "unit", "state", "version", "python"}


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
    monitor = Monitor("test", clock=lambda: 1234.5, folder=".")
    for event in (RunStarted("test", ("visual",)), PhaseStarted("visual"), PROGRESS):
        monitor(event)
    return monitor


def test_workers(monitor: Monitor) -> None:
    found = read(monitor)
    for worker in "01":
        for name, counter in WORKER_COUNTERS.items():
            assert at(found, f"{name}_total", phase="visual", worker=worker) == COUNTERS[counter]
        for name, gauge in WORKER_GAUGES.items():
            assert at(found, name, phase="visual", worker=worker) == GAUGES[gauge]
        parts = ("compute_seconds", "wire_seconds", "read_seconds")
        seconds = at(found, "psdevise_step_seconds_total", phase="visual", worker=worker)
        assert seconds == sum(COUNTERS[part] for part in parts)
    assert at(found, "psdevise_steps_total", phase="visual", worker="1") == 80


def test_a_phase(monitor: Monitor) -> None:
    found = read(monitor)
    assert at(found, "psdevise_loss", phase="visual") == 1.25
    assert at(found, "psdevise_workers_alive", phase="visual") == 2
    assert at(found, "psdevise_progress_ratio", phase="visual") == 0.5
    assert at(found, "psdevise_learning_rate", phase="visual") == 0.0025
    assert at(found, "psdevise_units_total", phase="visual", unit="examples") == 640
    assert at(found, "psdevise_leases", phase="visual") == 2
    assert at(found, "psdevise_epoch", phase="visual") == 3
    assert at(found, "psdevise_left_seconds", phase="visual") == 20
    assert at(found, "psdevise_slice_examples", phase="visual", state="refused") == 4
    assert at(found, "psdevise_phase_start_timestamp_seconds", phase="visual") == 1234.5
    assert at(found, "psdevise_learning_rate_multiplier", phase="visual") == 0.25  # of the worker that is ahead


def test_shards(monitor: Monitor) -> None:
    found = read(monitor)
    for shard in "01":
        own = {"phase": "visual", "shard": shard}
        assert at(found, "psdevise_shard_version", **own) == 90
        assert at(found, "psdevise_shard_incarnation", **own) == 4
        assert at(found, "psdevise_shard_bytes", **own) == 4096
        assert at(found, "psdevise_accumulator_norm", **own) == 7.5
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
    again = Monitor("test", clock=lambda: 1234.5)
    again(PhaseStarted("visual"))
    event = from_plain(json.loads(json.dumps(to_plain(PROGRESS))))
    assert event is not None
    again(event)
    disk = {"psdevise_disk_bytes", "psdevise_disk_free_bytes"}
    assert read(again) == {k: v for k, v in read(monitor).items() if k[0] not in disk}


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
    assert at(read(monitor), "psdevise_restarts_total", phase="language", role="shard") is None
    monitor(PhaseStarted("language"))
    assert at(read(monitor), "psdevise_restarts_total", phase="language", role="shard") == 0, "a first death increases"
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


def test_the_page_is_current() -> None:
    made = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert made == page(), "docs/metrics.md: make it anew as it says"


def test_the_disk_of_the_run_folder(tmp_path: Path) -> None:
    found = read(Monitor("test", folder=str(tmp_path)))
    assert at(found, "psdevise_disk_bytes") == shutil.disk_usage(tmp_path).total
    assert 0 < (at(found, "psdevise_disk_free_bytes") or 0) <= shutil.disk_usage(tmp_path).total


def test_names_follow_the_conventions() -> None:
    for name, row in METRICS.items():
        assert re.fullmatch(r"psdevise(_[a-z]+)+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert row.help.endswith(".")
        assert set(row.labels) <= LABELS


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
