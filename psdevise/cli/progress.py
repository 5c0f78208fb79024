"""A live line per phase: bar, rate, time left, loss, staleness, workers. Plain lines without a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from psdevise import events
from psdevise.events import Event

PLAIN_SECONDS = 10.0


class Display:
    """A listener of the event stream; use it as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plain = not console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=18),
            TextColumn("{task.percentage:>3.0f} %"),
            _Figures(),
            console=console,
            disable=self._plain,
            refresh_per_second=4,
        )
        self._tasks: dict[str, events.Progress] = {}
        self._ids: dict[str, int] = {}
        self._units: dict[str, str] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in list(self._bars.task_ids):
            self._bars.remove_task(task)
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case events.RunStarted(run, phases):
                self._say(f"[bold]{run}[/]  {' → '.join(phases)}")
            case events.PhaseStarted(phase, unit):
                self._units[phase] = unit
                if not self._plain:
                    self._ids[phase] = int(self._bars.add_task(phase, total=1.0, figures="starting"))
            case events.Progress(phase=phase, done=done):
                text = figures(event, self._units.get(phase, "examples"))
                if phase in self._ids:
                    self._bars.update(self._ids[phase], completed=done, figures=text)  # type: ignore[arg-type]
                elif self._plain and time.monotonic() - self._printed.get(phase, 0.0) > PLAIN_SECONDS:
                    self._printed[phase] = time.monotonic()
                    self._say(f"{phase:<14} {done:4.0%}  {text}")
            case events.PhaseFinished(phase, seconds, reused):
                if phase in self._ids:
                    self._bars.remove_task(self._ids.pop(phase))  # type: ignore[arg-type]
                how = "[dim]reused[/]" if reused else f"{duration(seconds)}"
                self._say(f"[green]✓[/] {phase:<14} {how}")
            case events.Validated(phase, name, value):
                self._say(f"  {phase:<14} {name}: {value:.3f}")
            case events.Notice(phase, text):
                self._say(f"[yellow]![/] {phase:<14} {text}")
            case events.Restarted(phase, role, rank, _, reason):
                self._say(f"[yellow]![/] {phase:<14} {role} {rank} was restarted: {reason}")
            case _:
                pass

    def _say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, soft_wrap=True)


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("figures", "")), style="dim")


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


def short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
