"""The other readers of the event stream: logs, TensorBoard, MLflow, and the endpoint read again."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from psdevise.errors import ConfigError, DataError, ResourceError
from psdevise.events import Event, Notice, PhaseFinished, PhaseStarted, Progress, Restarted, Validated
from psdevise.monitor import Monitor, logs
from psdevise.monitor.mlflow import MLflow
from psdevise.monitor.scrape import Scrape, locate, scrape, target_file
from psdevise.monitor.tensorboard import TensorBoard
from tests.monitor.test_exposition import PROGRESS

EVENTS: tuple[Event, ...] = (
    PhaseStarted("visual"),
    Progress("visual", 0.5, count=100.0, rate=20.0, loss=2.0, lag=1.0, learning_rate=0.1, workers=2),
    Progress("visual", 1.0, count=200.0, rate=30.0, loss=1.0, workers=2),
    Validated("visual", "softmax hit@1, validation", 0.25),
)


def test_tensorboard_reads_the_curves_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(str(tmp_path))
    for event in EVENTS:
        board(event)
    board.close()
    read = accumulator.EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(s.step, s.value) for s in read.Scalars("visual/loss")] == [(100, 2.0), (200, 1.0)]
    assert [s.step for s in read.Scalars("visual/lag")] == [100], "what is not known is left out"
    assert [s.value for s in read.Scalars("visual/softmax hit@1, validation")] == [0.25]


def test_mlflow_gets_parameters_curves_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the client alone has no other store without a server
    uri = f"file:{tmp_path}/mlruns"
    tracked = MLflow(uri, "a run", {"seed": 3, "cluster": {"num_workers": 2}})
    for event in EVENTS:
        tracked(event)
    tracked.close(failed=True)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("psdevise").experiment_id])
    assert run.info.run_name == "a run"
    assert run.info.status == "FAILED"
    assert run.data.params == {"seed": "3", "cluster.num_workers": "2"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "visual.loss")] == [
        (100, 2),
        (200, 1),
    ]
    assert run.data.metrics["visual.softmax_hit_1__validation"] == 0.25


def test_an_mlflow_that_is_not_there_is_named() -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(ConfigError, match=r"monitor\.mlflow"):
        MLflow("nonsense://nowhere", "a run", {})


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_logs_are_json_lines_and_end(tmp_path: Path) -> None:
    handler = logs.begin(str(tmp_path / "logs"), "driver")
    try:
        for event in (PhaseStarted("visual"), Restarted("visual", "shard", 1, 7, "killed"), Notice("visual", "slow")):
            logs.log_event(event)
        logs.log_event(PhaseFinished("visual", 1.5))
        with pytest.raises(ZeroDivisionError), logs.telling_errors():
            1 / 0  # noqa: B018
        logging.getLogger("psdevise.somewhere").info("a\nline")
    finally:
        logs.end(handler)
    logs.logger.info("nobody hears this")
    found = lines(tmp_path / "logs/driver.jsonl")
    assert [line["text"] for line in found] == [
        "visual began",
        "visual: shard 1 is incarnation 7 now: killed",
        "visual: slow",
        "visual ended after 1.5 s",
        "ended by ZeroDivisionError",
        "a\nline",
    ]
    assert [line["level"] for line in found] == ["info", "warning", "warning", "info", "error", "info"]
    assert "division by zero" in str(found[4]["error"])
    assert {line["process"] for line in found} == {"driver"}


def test_a_run_does_not_fail_for_its_log(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert logs.begin(str(tmp_path / "file"), "driver") is None
    assert logs.begin("memory://runs/a/logs", "driver") is None


def test_what_is_scraped_is_what_was_exposed() -> None:
    monitor = Monitor("test")
    monitor(PhaseStarted("visual"))
    monitor(PROGRESS)
    try:
        url = monitor.serve(0).url
        found = scrape(url, 10.0)
    finally:
        monitor.close()
    assert found.run == "test"
    assert found.get("psdevise_steps_total", "visual", "1") == 80
    assert found.keys("psdevise_steps_total", "visual") == [("0",), ("1",)]
    assert found.get("psdevise_pushes_total", "visual", "0", "too_stale") == 3
    with pytest.raises(ResourceError, match="has the run ended"):
        scrape(url, 11.0)


def test_rates_and_resets() -> None:
    before = Scrape("r", 10.0, {"c": {("a",): 100.0}})
    assert Scrape("r", 12.0, {"c": {("a",): 140.0}}).rate(before, "c", "a") == 20
    assert Scrape("r", 12.0, {"c": {("a",): 30.0}}).rate(before, "c", "a") == 15, "from zero again"
    assert Scrape("r", 12.0, {"c": {("b",): 30.0}}).rate(before, "c", "b") is None
    assert before.rate(None, "c", "a") is None


def test_series_are_in_the_order_of_their_numbers() -> None:
    found = Scrape("r", 0.0, {"c": {("p", str(n)): 0.0 for n in (10, 9, 0)}})
    assert found.keys("c", "p") == [("0",), ("9",), ("10",)]


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("127.0.0.1:9464", "http://127.0.0.1:9464/metrics"),
        ("http://head:1", "http://head:1/metrics"),
        ("https://head/psdevise/metrics", "https://head/psdevise/metrics"),
    ],
)
def test_places(place: str, url: str) -> None:
    assert locate(place) == url


def test_a_run_folder_is_a_place_while_the_run_lives(tmp_path: Path) -> None:
    path = Path(target_file(str(tmp_path), "mine"))
    path.parent.mkdir()
    path.write_text(json.dumps([{"targets": ["host:5"], "labels": {}}]))
    assert locate(str(tmp_path / "mine")) == "http://host:5/metrics"
    path.unlink()
    with pytest.raises(DataError, match="no run of this folder"):
        locate(str(tmp_path / "mine"))
