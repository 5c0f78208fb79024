"""`psdevise top`: a running job in the terminal, here or elsewhere, from the same endpoint that Prometheus scrapes."""

from __future__ import annotations

import time

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from psdevise.cli.console import console
from psdevise.cli.progress import duration
from psdevise.errors import ResourceError
from psdevise.monitor.scrape import Scrape, locate, scrape
from psdevise.report.text import short

SHARES = ("compute", "fetch", "push", "read", "idle")
PATIENCE = 5  # scrapes without an answer after which the run is taken to have ended


@click.command()
@click.argument("place", metavar="URL|RUN", default="127.0.0.1:9464")
@click.option("--interval", default=2.0, show_default=True, type=click.FloatRange(0.2), help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look twice, print, and end.")
def top(place: str, interval: float, once: bool) -> None:
    """Show throughput, lag and waiting of every worker and shard of a running job, live, until it ends or Ctrl-C.

    URL is where its /metrics answers (the run prints it), RUN its folder. Rates are over the last interval.

    \b
    psdevise top
    psdevise top runs/quickstart
    psdevise top http://head:9464 --interval 5
    """
    url = locate(place)
    before: Scrape | None = None
    now = scrape(url, time.monotonic())
    if once:
        time.sleep(interval)
        console.print(draw(scrape(url, time.monotonic()), now))
        return
    missed = 0
    with Live(draw(now, None), console=console, auto_refresh=False, transient=True) as live:
        while missed < PATIENCE:
            time.sleep(interval)
            try:
                before, now = now, scrape(url, time.monotonic())
                missed = 0
            except ResourceError:
                missed += 1
                continue
            live.update(draw(now, before), refresh=True)
    console.print(draw(now, before))
    console.print(f"{now.run} answers no more at {url}", highlight=False)


def draw(now: Scrape, before: Scrape | None) -> RenderableType:
    """What is known of each phase under way: a head line, its workers, its shards."""
    phases = [phase for (phase,) in now.keys("psdevise_progress_ratio")]
    parts: list[RenderableType] = []
    for phase in phases:
        parts.append(_head(now, before, phase))
        for table in (_workers(now, before, phase), _shards(now, before, phase)):
            if table.row_count:
                parts += [table, ""]
    if not phases:
        parts.append(f"{now.run}: {'finished' if now.get('psdevise_run_finished') else 'no phase under way'}")
    return Group(*parts)


def _head(now: Scrape, before: Scrape | None, phase: str) -> Text:
    facts = [f"{now.get('psdevise_progress_ratio', phase) or 0.0:.0%}"]
    for (unit,) in now.keys("psdevise_units_total", phase):
        if rate := now.rate(before, "psdevise_units_total", phase, unit):
            facts.append(f"{short(rate)} {unit}/s")
    if (left := now.get("psdevise_left_seconds", phase)) is not None:
        facts.append(f"{duration(left)} left")
    if (loss := now.get("psdevise_loss", phase)) is not None:
        facts.append(f"loss {loss:.3g}")
    if (rate := now.get("psdevise_learning_rate", phase)) is not None:
        facts.append(f"rate {rate:.3g}")
    if restarts := sum(now.get("psdevise_restarts_total", phase, role) or 0 for role in ("worker", "shard")):
        facts.append(f"{restarts:.0f} restarts")
    return Text.assemble((f"{now.run} / {phase}  ", "bold"), " · ".join(facts))


def _workers(now: Scrape, before: Scrape | None, phase: str) -> Table:
    table = _table("worker", "steps/s", "ex/s", "lag", *(f"{s} %" for s in SHARES), "MB/s in", "MB/s out", "silent s")
    for (worker,) in now.keys("psdevise_steps_total", phase):
        rate = [now.rate(before, f"psdevise_{name}_total", phase, worker) for name in ("steps", "examples")]
        shares = [now.rate(before, f"psdevise_{name}_seconds_total", phase, worker) for name in SHARES]
        wire = [now.rate(before, f"psdevise_{name}_bytes_total", phase, worker) for name in ("pulled", "pushed")]
        silent = now.get("psdevise_silent_seconds", phase, worker)
        cells = [worker, *map(_number, rate), _number(now.get("psdevise_lag", phase, worker))]
        cells += ["" if s is None else f"{100 * s:.0f}" for s in shares]
        cells += ["" if b is None else f"{b / 1e6:.1f}" for b in wire]
        table.add_row(*cells, "" if silent is None else f"{silent:.1f}", style="red" if (silent or 0) > 10 else "")
    return table


def _shards(now: Scrape, before: Scrape | None, phase: str) -> Table:
    table = _table("shard", "pushes/s", "refused", "repeated", "busy %", "mean lag", "updates", "MB", "life")
    for (shard,) in now.keys("psdevise_shard_version", phase):
        outcomes = {
            o: now.get("psdevise_pushes_total", phase, shard, o) or 0.0 for (o,) in _outcomes(now, phase, shard)
        }
        pushes = now.rate(before, "psdevise_push_lag_count", phase, shard)
        lags = now.rate(before, "psdevise_push_lag_sum", phase, shard)
        busy = now.rate(before, "psdevise_shard_update_seconds_total", phase, shard)
        table.add_row(
            shard,
            _number(pushes),
            short(sum(n for o, n in outcomes.items() if o not in ("applied", "repeated"))),
            short(outcomes.get("repeated", 0.0)),
            "" if busy is None else f"{100 * busy:.0f}",
            "" if not pushes or lags is None else f"{lags / pushes:.1f}",
            _number(now.get("psdevise_shard_version", phase, shard)),
            f"{(now.get('psdevise_shard_bytes', phase, shard) or 0.0) / 1e6:.1f}",
            f"{now.get('psdevise_shard_incarnation', phase, shard) or 0:.0f}",
        )
    return table


def _outcomes(now: Scrape, phase: str, shard: str) -> list[tuple[str, ...]]:
    return now.keys("psdevise_pushes_total", phase, shard)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim not bold")
    table.add_column(first, style="bold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else short(value)
