from __future__ import annotations

from dataclasses import replace

from click.testing import CliRunner
from rich.console import Console

from psdevise.cli.main import psdevise
from psdevise.cli.top import draw
from psdevise.events import PhaseStarted, WorkerFigures
from psdevise.monitor import Monitor
from psdevise.monitor.scrape import scrape
from tests.monitor.test_exposition import COUNTERS, GAUGES, PROGRESS


def text(monitor: Monitor) -> str:
    """What is drawn after two seconds in which worker 0 made 10 steps, and computed for 1.5 s."""
    url = monitor.serve(0).url
    try:
        before = scrape(url, 0.0)
        counters = COUNTERS | {"compute_seconds": COUNTERS["compute_seconds"] + 1.5}
        figures = (
            WorkerFigures(0, 100, counters, GAUGES),
            replace(PROGRESS.figures[1], gauges={"silent_seconds": 42.0}),
        )
        monitor(replace(PROGRESS, count=740.0, figures=figures))
        now = scrape(url, 2.0)
    finally:
        monitor.close()
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(draw(now, before))
    return console.export_text()


def test_workers_and_shards_stand_in_rows() -> None:
    monitor = Monitor("test")
    monitor(PhaseStarted("visual"))
    monitor(PROGRESS)
    lines = [line.split() for line in text(monitor).splitlines() if line]
    assert " ".join(lines[0]) == "test / visual 50% · 50 examples/s · 0:20 left · loss 1.25 · rate 0.0025"
    workers = {line[0]: line for line in lines[2:4]}
    assert workers["0"][1:3] == ["5", "0"], "steps and examples a second"
    assert workers["0"][4] == "75", "per cent of the time in computing"
    assert workers["1"][-1] == "42.0"
    shard = lines[5]
    assert shard[:4] == ["0", "0", "4", "2"], "pushes a second, refused, repeated"
    assert shard[-1] == "4", "its incarnation"


def test_before_and_after_training() -> None:
    monitor = Monitor("test")
    url = monitor.serve(0).url
    try:
        result = CliRunner().invoke(psdevise, ["top", url, "--once", "--interval", "0.2"])
    finally:
        monitor.close()
    assert result.exit_code == 0, result.output
    assert "no phase under way" in result.output
