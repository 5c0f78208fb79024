"""A live row per phase: bar, rate, time left, loss, lag, workers. Plain lines where there is no terminal.

Rows of the phases under way stand at the bottom and are drawn anew; what has ended, and what the user should
know, is printed above them and stays. Snapshots come every few seconds: on a terminal only the age of the
last one is shown (it is what a stop would cost), in a log each has its line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from psdevise import events
from psdevise.events import Event
from psdevise.report.text import short

PLAIN_SECONDS = 10.0  # between two lines of a phase where there is no terminal
REFRESH = 4  # redraws a second
NAME_WIDTH = 14


@dataclass
class _Row:
    """A phase under way: its unit, its last Progress, when it began, and when a plain line was due last."""

    unit: str
    begin: float
    printed: float
    last: events.Progress


class Display:
    """A listener of the event stream; use it as a context.

    Args:
        console: decides whether there is a terminal to draw on.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._begin = clock()
        self._run = ""
        self._phases: tuple[str, ...] = ()
        self._ended = 0
        self._snapshot: float | None = None
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None
        if console.is_terminal:
            # What is left on the screen at the end is what was printed above: the rows go.
            self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=REFRESH, transient=True)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for phase, row in list(self._rows.items()):
            after = duration(self._clock() - row.begin)
            self._say("–", "yellow", phase, f"stopped at {row.last.done:.0%} after {after}")
        self._rows.clear()
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case events.RunStarted(run, phases):
                self._run, self._phases, self._ended = run, phases, 0
                self._print(Text.assemble((run, "bold"), ("  " + " → ".join(phases), "dim")))
            case events.PhaseStarted(phase, unit):
                now = self._clock()
                self._rows[phase] = _Row(unit, now, now, events.Progress(phase, 0.0))
            case events.Progress(phase=phase):
                row = self._rows.setdefault(phase, _Row("examples", self._clock(), self._clock(), event))
                row.last = event
                if self._live is None and self._clock() - row.printed >= PLAIN_SECONDS:
                    row.printed = self._clock()
                    self._say(" ", "", phase, f"{event.done:4.0%}  {figures(event, row.unit)}")
            case events.PhaseFinished(phase, seconds, reused):
                ended = self._rows.pop(phase, None)
                self._ended += 1
                self._snapshot = self._snapshot if self._rows else None
                if reused:
                    self._say("✓", "green", phase, " reused", "dim")
                else:
                    self._say("✓", "green", phase, f"{duration(seconds):>7}", detail=_outcome(ended))
            case events.Validated(phase, name, value):
                self._say("·", "cyan", phase, f"{name}: {value:.3f}")
            case events.SnapshotWritten(phase, number, seconds):
                self._snapshot = self._clock()
                if self._live is None:
                    self._say("·", "dim", phase, f"snapshot {number} in {seconds:.2g} s", "dim")
            case events.Notice(phase, text):
                self._say("!", "yellow", phase, text)
            case events.Restarted(phase, role, rank, _, reason, examples):
                lost = f" ({short(examples)} examples {event.fate})" if examples else ""
                self._say("!", "yellow", phase, f"{role} {rank} was restarted{lost}: {reason}")
            case _:
                pass

    def _say(self, mark: str, style: str, phase: str, text: str, text_style: str = "", detail: str = "") -> None:
        head = Text.assemble((mark, style), f" {phase:<{NAME_WIDTH}}")
        body = Text.assemble((text, text_style), (detail, "dim"))
        if self._live is None:
            self._print(Text.assemble(head, " ", body))
            return
        line = Table.grid(padding=(0, 1, 0, 0))  # a long text wraps inside its own column
        line.add_row(head, body)
        self._console.print(line, highlight=False)

    def _print(self, text: Text) -> None:
        # A log keeps long lines whole.
        self._console.print(text, highlight=False, soft_wrap=self._live is None)

    def _draw(self) -> RenderableType:
        """Called by the live display's own thread, too: reads a copy of the rows."""
        rows = dict(self._rows)
        if not self._run:
            return Text()
        where = [f"{self._ended} of {len(self._phases)} phases", duration(self._clock() - self._begin)]
        if self._snapshot is not None:
            where.append(f"snapshot {duration(self._clock() - self._snapshot)} ago")
        footer = Text.assemble((f"{self._run}  ", "bold"), (" · ".join(where), "dim"))
        return Group("", self._table(rows), footer) if rows else footer

    def _table(self, rows: dict[str, _Row]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim not bold")
        table.add_column("phase", style="bold", no_wrap=True, min_width=NAME_WIDTH)
        table.add_column("", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True, min_width=4)
        table.add_column("per second", no_wrap=True, min_width=14)
        table.add_column("left", justify="right", no_wrap=True, min_width=5)
        trained = any(row.last.workers for row in rows.values())
        if trained:
            table.add_column("loss", justify="right", no_wrap=True, min_width=5)
            table.add_column("lag", justify="right", no_wrap=True, min_width=3)
            table.add_column("workers", justify="right", no_wrap=True)
        width = max(6, min(36, self._console.width - 72))
        for phase, row in rows.items():
            last = row.last
            # No figure yet (placing actors, opening data): the bar moves to and fro.
            waiting = last.done <= 0
            cells: list[RenderableType] = [
                phase,
                ProgressBar(1.0, last.done, width, pulse=waiting, complete_style="cyan", pulse_style="cyan"),
                "" if waiting else f"{last.done:.0%}",
                _rate(last, row.unit),
                duration(last.left) if last.left is not None and last.done < 1 else "",
            ]
            if trained:
                cells += [
                    "" if last.loss is None else f"{last.loss:.3g}",
                    "" if last.lag is None else f"{last.lag:.1f}",
                    str(last.workers) if last.workers else "",
                ]
            table.add_row(*cells)
        return table


def figures(event: events.Progress, unit: str) -> str:
    """`8.1k words/s · 0:42 left · loss 1.23 · lag 2.0 · 2 workers`, without what is not known."""
    parts = [f"{short(event.rate)} {unit}/s" if event.rate else "starting"]
    if event.left is not None and event.done < 1:
        parts.append(f"{duration(event.left)} left")
    if event.loss is not None:
        parts.append(f"loss {event.loss:.3g}")
    if event.lag is not None:
        parts.append(f"lag {event.lag:.1f}")
    if event.workers:
        parts.append(f"{event.workers} worker{'s' * (event.workers > 1)}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """0:42, 12:05, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(event: events.Progress, unit: str) -> Text:
    return Text.assemble(f"{short(event.rate):>5} ", (unit, "dim")) if event.rate else Text("starting", "dim")


def _outcome(row: _Row | None) -> str:
    """What a phase that has ended did: `  45.3k examples · loss 1.23`."""
    if row is None or not row.last.count:
        return ""
    loss = "" if row.last.loss is None else f" · loss {row.last.loss:.3g}"
    return f"  {short(row.last.count)} {row.unit}{loss}"
