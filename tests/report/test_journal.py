from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from psdevise.errors import DataError, StoreError
from psdevise.events import Event, PhaseFinished, PhaseStarted, Progress, RunStarted, to_plain
from psdevise.report import history
from psdevise.report.journal import FINISHED, REUSED, STOPPED, Journal, read
from tests.report import example


def written(folder: Path, events: list[tuple[float, Event]]) -> Journal:
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps({"time": t, **to_plain(e)}) + "\n" for t, e in events))
    return read(str(path))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return written(tmp_path, list(example.journal()))


def test_sessions_are_joined_without_the_time_between_them(journal: Journal) -> None:
    assert (journal.sessions, journal.seconds, journal.ended) == (2, 17 + 30, True)
    assert list(journal.phases) == list(example.PHASES)


def test_a_stopped_phase_and_its_continuation_are_one(journal: Journal) -> None:
    visual = journal.phases["visual"]
    assert [a.outcome for a in visual.attempts] == [STOPPED, FINISHED]
    assert (visual.outcome, visual.seconds) == (FINISHED, 5 + 12)
    points = list(visual.points())
    assert [p.seconds for p in points] == [1, 2, 3, 4, 5, *(5 + i for i in range(5, 11))]
    assert {p.part for p in points} == {0, 1}


def test_a_reused_phase_keeps_its_own_history(journal: Journal) -> None:
    language = journal.phases["language"]
    assert [a.outcome for a in language.attempts] == [FINISHED, REUSED]
    assert (language.outcome, language.seconds, language.bill["core_seconds"]) == (FINISHED, 10, 3600)


def test_a_phase_that_was_redone_forgets_what_was_thrown_away(tmp_path: Path) -> None:
    events: list[tuple[float, Event]] = []
    for start, loss in ((0, 9.0), (100, 1.0)):
        events += [(start, RunStarted("r", ("a",))), (start, PhaseStarted("a"))]
        events += [(start + 1, Progress("a", 1.0, 5, 3.0, loss)), (start + 2, PhaseFinished("a", 2.0))]
    phase = written(tmp_path, events).phases["a"]
    assert [p.loss for p in phase.points()] == [1.0]
    assert phase.seconds == 2


def test_lags_are_summed_over_incarnations_and_counted_once(journal: Journal) -> None:
    both = Counter({lag: 2 * n for lag, n in example.LAGS.items()})
    assert journal.phases["visual"].lags == dict(both)  # incarnations 3 and 5
    halves = {lag: 2 * round(n / 2) for lag, n in example.LAGS.items()}
    assert journal.phases["joint-devise"].lags == halves  # projection and fine-tuning


def test_a_phase_in_two_parts_draws_two_lines(journal: Journal) -> None:
    assert {p.part for p in journal.phases["joint-devise"].points()} == {0, 1}
    drawn = [c["svg"] for c in history.curves(journal) if c["name"] == "joint-devise"]
    assert [svg.count("<polyline") for svg in drawn] == [2, 2]


def test_phases_side_by_side(tmp_path: Path) -> None:
    events: list[tuple[float, Event]] = [
        (0, RunStarted("r", ("a", "b"))),
        (0, PhaseStarted("a")),
        (1, PhaseStarted("b")),
        (4, PhaseFinished("b", 3.0)),
        (5, PhaseFinished("a", 5.0)),
    ]
    phases = written(tmp_path, events).phases
    assert [(p.attempts[0].begin, p.attempts[0].end) for p in phases.values()] == [(0, 5), (1, 4)]


def test_broken_lines_and_events_of_a_newer_version_are_counted(tmp_path: Path) -> None:
    path = example.run_folder(tmp_path / "run") / "events.jsonl"
    broken = ['{"time": 1, "event": "Tomorrow"}', "[1]", '{"event": "RunStarted", "run"', '{"event": "Notice"}']
    path.write_text(path.read_text() + "\n".join(broken))
    journal = read(str(path))
    assert (journal.unreadable, journal.ended) == (4, True)


def test_no_file_and_no_event(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        read(str(tmp_path / "events.jsonl"))
    (tmp_path / "events.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no event"):
        read(str(tmp_path / "events.jsonl"))


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    losses = [2.0, float("nan"), 1.0]
    events: list[tuple[float, Event]] = [(0, RunStarted("r", ("a",))), (0, PhaseStarted("a"))]
    events += [(i + 1.0, Progress("a", i / 3, i, 5.0, loss)) for i, loss in enumerate(losses)]
    journal = written(tmp_path, events)
    assert [p.loss for p in journal.phases["a"].points()] == [2.0, None, 1.0]
    assert "nan" not in history.curves(journal)[0]["svg"]


def test_the_bill_adds_up(journal: Journal) -> None:
    found = history.bill(journal)
    assert found["roles"] == ["shard", "worker"]
    assert found["total"]["core_seconds"] == 3600 + 7200
    assert found["total"]["gpu_seconds"] == 1800
    assert found["total"]["bytes"] == 7e9
    assert found["total"]["peaks"] == [1e9, 2e9]
    rows = {r["name"]: r for r in found["rows"]}
    assert rows["language"]["shares"] == [80, 20, 0]
    assert rows["evaluate"]["core_seconds"] is None


def test_lag_figures_against_numpy(journal: Journal) -> None:
    import numpy as np

    lags = np.repeat(list(example.LAGS), list(example.LAGS.values()))
    found = next(c for c in history.lag_charts(journal) if c["name"] == "language")
    assert found["mean"] == pytest.approx(lags.mean())
    assert (found["median"], found["max"], found["pushes"]) == (np.median(lags), 7, 100)


def test_thinning_keeps_the_mean_and_the_end() -> None:
    points = [(float(i), float(i % 7)) for i in range(9000)]
    thin = history.thinned(points)
    assert len(thin) <= history.MOST_POINTS
    assert thin[-1] == points[-1]
    assert sum(y for _, y in thin) / len(thin) == pytest.approx(3.0, abs=0.1)
    assert history.thinned(points[:50]) == points[:50]
