from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from psdevise.cli.progress import Display, duration, figures
from psdevise.events import (
    Event,
    Notice,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Restarted,
    RunFinished,
    RunStarted,
    SnapshotWritten,
    Validated,
)
from psdevise.report.text import short

PHASES = ("vocabulary", "language", "visual", "joint-devise")
LANGUAGE = Progress("language", 0.62, 534000, 81234, 4.1234, 1.5, 2, 1, 42.0)
VISUAL = Progress("visual", 0.25, 10658, 958.1, 2.447, 3.25, 2, 2, 3725.0)
BEFORE: list[Event] = [
    RunStarted("example", PHASES),
    PhaseStarted("vocabulary", "words"),
    PhaseFinished("vocabulary", 0.0, reused=True),
    PhaseStarted("language", "words"),
    PhaseStarted("visual", "examples"),
    LANGUAGE,
    VISUAL,
]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """A display on a console that is, or is not, a terminal; `text()` is what was printed on it."""

    def __init__(self, terminal: bool, width: int = 80) -> None:
        self.clock = Clock()
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=terminal, width=width, height=24, color_system=None, legacy_windows=False
        )
        self.display = Display(self.console, self.clock)

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue()).replace("\r", "")

    def rows(self) -> list[str]:
        """The rows of the phases under way, as they are drawn now."""
        with self.console.capture() as capture:
            self.console.print(self.display._draw())
        return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_row_per_phase_with_all_its_figures(width: int) -> None:
    screen = Screen(terminal=True, width=width)
    for event in BEFORE:
        screen.display(event)
    blank, head, language, visual, footer = screen.rows()
    assert blank == ""
    assert head.split() == ["phase", "per", "second", "left", "loss", "lag", "workers"]
    assert re.fullmatch(r"language +━+[╸╺]?━* +62% +81\.2k words +0:42 +4\.12 +1\.5 +2", language)
    assert re.fullmatch(r"visual +━+[╸╺]?━* +25% +958 examples +1:02:05 +2\.45 +3\.2 +2", visual)
    assert footer.startswith("example  1 of 4 phases")
    assert all(len(row) <= width for row in screen.rows())


def test_a_phase_that_trains_nothing_has_no_loss_and_no_workers() -> None:
    screen = Screen(terminal=True)
    for event in (RunStarted("r", ("images",)), PhaseStarted("images", "pictures"), Progress("images", 0.5, 9, 3.0)):
        screen.display(event)
    assert screen.rows()[1].split() == ["phase", "per", "second", "left"]
    assert "3 pictures" in screen.rows()[2]


def test_a_phase_without_a_figure_yet_is_starting() -> None:
    screen = Screen(terminal=True)
    screen.display(RunStarted("r", ("language",)))
    screen.display(PhaseStarted("language", "words"))
    assert "starting" in screen.rows()[2]
    assert "%" not in screen.rows()[2]


def test_the_footer_tells_the_age_of_the_last_snapshot() -> None:
    screen = Screen(terminal=True)
    for event in (*BEFORE, SnapshotWritten("visual", 1, 0.05)):
        screen.display(event)
    screen.clock.now += 75
    assert screen.rows()[-1] == "example  1 of 4 phases · 1:15 · snapshot 1:15 ago"
    assert "snapshot" not in screen.text()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_has_ended_and_what_matters_stays(terminal: bool) -> None:
    screen = Screen(terminal)
    with screen.display as display:
        for event in (
            *BEFORE,
            Notice("visual", "fetch and push take [2.0] x the time of computing"),
            Restarted("visual", "worker", 1, 7, "the process died [oom]", 5300),
            PhaseFinished("language", 19.2),
            Validated("visual", "hit@1, validation", 0.5023),
            PhaseFinished("visual", 65.0),
            RunFinished("example", 90.0),
        ):
            display(event)
    text = screen.text()
    assert "✓ vocabulary      reused" in text
    assert "! visual         fetch and push take [2.0] x the time of computing" in text
    assert "! visual         worker 1 was restarted (5.3k examples again): the process died" in text
    assert "[oom]" in text  # square brackets are no markup here
    assert "✓ language          0:19  534k words · loss 4.12" in text
    assert "· visual         hit@1, validation: 0.502" in text
    assert "✓ visual            1:05  10.7k examples · loss 2.45" in text
    assert "stopped" not in text


def test_a_long_notice_wraps_inside_its_column() -> None:
    screen = Screen(terminal=True)
    with screen.display as display:
        display(Notice("visual", "word " * 40))
    lines = [line for line in screen.text().splitlines() if "word" in line]
    assert len(lines) > 2
    assert all(line.startswith(" " * 17) for line in lines[1:])
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stop_says_how_far_each_phase_was(terminal: bool) -> None:
    screen = Screen(terminal)

    def stopped() -> None:
        with screen.display as display:
            for event in BEFORE:
                display(event)
            screen.clock.now += 62
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "– language       stopped at 62% after 1:02" in screen.text()
    assert "– visual         stopped at 25% after 1:02" in screen.text()


def test_without_a_terminal_a_line_every_ten_seconds_and_no_escapes() -> None:
    screen = Screen(terminal=False)
    with screen.display as display:
        for event in BEFORE[:-2]:
            display(event)
        for _ in range(100):  # 50 seconds
            screen.clock.now += 0.5
            display(LANGUAGE)
        display(SnapshotWritten("language", 3, 0.05))
        display(PhaseFinished("language", 50.0))
        display(PhaseFinished("visual", 50.0))
    text = screen.file.getvalue()
    assert "\x1b" not in text
    line = "  language        62%  81.2k words/s · 0:42 left · loss 4.12 · lag 1.5 · 2 workers"
    assert text.splitlines().count(line) == 5
    assert "· language       snapshot 3 in 0.05 s" in text


def test_figures_leave_out_what_is_not_known() -> None:
    assert figures(Progress("p", 0.0), "words") == "starting"
    assert figures(Progress("p", 0.5, rate=12.0), "words") == "12 words/s"
    assert figures(Progress("p", 1.0, rate=12.0, left=0.0, workers=1), "words") == "12 words/s · 1 worker"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (999.4, "999"), (999.6, "1k"), (1234, "1.23k"), (2.5e6, "2.5M"), (3e9, "3G")]
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3723, "1:02:03")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
