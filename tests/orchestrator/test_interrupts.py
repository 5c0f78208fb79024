"""Ctrl-C in the midst of a phase, on a tiny world in one process: the same command goes on where it stopped."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from psdevise.errors import Interrupted
from psdevise.events import Event, PhaseFinished, PhaseStarted, Progress
from psdevise.orchestrator import run as run_module
from psdevise.orchestrator.run import execute
from psdevise.runtime import progress
from tests.world import PHASES, tiny


@pytest.mark.parametrize("phase", ["language", "visual", "joint-devise"])
def test_interrupted_in_a_phase_it_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """Finished phases are not run again, the interrupted one continues, and the audit has every example."""
    interrupt = threading.Event()
    monkeypatch.setattr(run_module, "_interruptible", lambda: _Given(interrupt))
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)

    def stop_half_way(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == phase and event.figures and event.done > 0.2:
            interrupt.set()

    options = tiny(tmp_path)
    with pytest.raises(Interrupted):
        execute(options, stop_half_way)
    interrupt.clear()
    events: list[Event] = []
    execute(options, events.append)
    reused = [e.phase for e in events if isinstance(e, PhaseFinished) and e.reused]
    assert reused == PHASES[: PHASES.index(phase)]
    first = next(e for e in events if isinstance(e, Progress) and e.phase == phase and e.figures)
    assert first.done > 0.1
    if phase != "joint-devise":
        path = next((tmp_path / "tiny" / "artifacts").glob(f"{phase}-*")) / "artifact.json"
        audit = json.loads(path.read_text())["figures"]["audit"]
        assert audit["refused"] == 0
        assert audit["repeated"] == 0


@pytest.mark.parametrize("phase", ["features", "evaluate"])
def test_what_the_driver_computes_itself_stops_in_its_midst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    interrupt = threading.Event()
    monkeypatch.setattr(run_module, "_interruptible", lambda: _Given(interrupt))

    def stop_at_its_start(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == phase:
            interrupt.set()

    options = tiny(tmp_path)
    with pytest.raises(Interrupted) as stopped:
        execute(options, stop_at_its_start)
    assert stopped.value.where == phase
    interrupt.clear()
    events: list[Event] = []
    execute(options, events.append)
    reused = [e.phase for e in events if isinstance(e, PhaseFinished) and e.reused]
    assert reused == PHASES[: PHASES.index(phase)]


class _Given:
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __enter__(self) -> threading.Event:
        return self._event

    def __exit__(self, *error: object) -> None:
        pass
