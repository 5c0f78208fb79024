"""`psdevise simulate`: how a cluster would do, before there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from psdevise.cli.console import console, error_console

if TYPE_CHECKING:
    from psdevise.simulation.calibrate import Prediction
    from psdevise.simulation.options import SimulateOptions
    from psdevise.simulation.scale import Outcome


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers above 0, with commas between them."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind
        self.name = "N[,N…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"expected numbers with commas between them, got {value!r}")
        if not all(0 < n < float("inf") for n in found):
            self.fail(f"expected numbers above 0, got {value!r}")
        return found


WHOLE, ANY = Numbers(int), Numbers(float)


@click.command()
@click.argument("config", required=False, metavar="[COSTS.YAML]")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one option; may be repeated.")
@click.option("--workers", type=WHOLE, default=(), help="Numbers of workers.")
@click.option("--shards", type=WHOLE, default=(), help="Numbers of shards.")
@click.option("--n-push", type=WHOLE, default=(), help="Steps between two fetches, and between two pushes.")
@click.option("--compression", type=ANY, default=(), help="Bytes of a value on the wire: 4 is float32 as it is.")
@click.option("--gbit", type=ANY, default=(), help="Gbit/s of a host's network card.")
@click.option("--rate", "rates", type=ANY, default=(), help="Learning rates of the small model.")
@click.option("--json", "json_path", metavar="FILE", help="Write options and outcomes as a JSON array of objects.")
@click.option("--calibrate", metavar="FILE", help="Predict what `psdevise bench scale --json FILE` measured.")
@click.option("--options", "list_options", is_flag=True, help="List every option with its default and meaning.")
def simulate(
    config: str | None,
    overrides: tuple[str, ...],
    workers: tuple[int, ...],
    shards: tuple[int, ...],
    n_push: tuple[int, ...],
    compression: tuple[float, ...],
    gbit: tuple[float, ...],
    rates: tuple[float, ...],
    json_path: str | None,
    calibrate: str | None,
    list_options: bool,
) -> None:
    """Simulate a cluster with measured costs: throughput, lag, what saturates, time to a loss, what deaths cost.

    The product's own shards, clients, workers, ledger and snapshots run under simulated time. What they compute and
    move is a small model; its times are those of the model that COSTS.YAML describes. All combinations of the lists
    are run. With --calibrate the costs are taken from the file's points with 1 and 2 workers and 1 shard, and its
    other points are predicted.

    \b
    psdevise simulate --workers 1,4,16 --shards 1,2
    psdevise simulate jobs/simulate/alexnet.yaml --workers 16,64 --shards 8,32 --n-push 1,8 --gbit 10,100
    psdevise simulate --workers 1,4,16 --set learning.target=1.0 --rate 0.01,0.03
    psdevise simulate --workers 16 --set failures.worker_deaths=2 --set seconds=3600
    psdevise simulate --calibrate scale.json
    """
    from psdevise import config as configuration
    from psdevise.simulation.grid import Grid
    from psdevise.simulation.options import SimulateOptions

    if list_options:
        for path, default, text in configuration.describe(SimulateOptions):
            console.print(f"[bold]{path}[/] = {default}", highlight=False, soft_wrap=True)
            console.print(f"    {text}", highlight=False, soft_wrap=True)
        return
    if calibrate is not None:
        if config or overrides or workers or shards or n_push or compression or gbit or rates:
            raise click.UsageError("--calibrate simulates the file's own points: give it alone, or with --json")
        _calibrate(calibrate, json_path)
        return
    if config is None:
        base = configuration.build(SimulateOptions, configuration.override({}, overrides))
    else:
        base = configuration.load(SimulateOptions, config, overrides)
    runs = Grid(workers, shards, n_push, compression, gbit, rates).of(base)
    console.print(_table(_run_all(runs, json_path)))


def _run_all(runs: list[SimulateOptions], json_path: str | None) -> list[tuple[SimulateOptions, Outcome]]:
    """Whatever ends it, the file has what was found so far."""
    from psdevise import config as configuration
    from psdevise import store
    from psdevise.simulation.scale import simulate as run

    found, rows = [], []
    with _progress() as bar:
        task = bar.add_task("", total=float(len(runs)))
        for i, options in enumerate(runs):
            begin, what = time.monotonic(), f"{i + 1}/{len(runs)} {options.workers} workers, {options.shards} shards"

            def on_progress(done: int, of: int, i: int = i, what: str = what, begin: float = begin) -> None:
                rate = done / max(1e-9, time.monotonic() - begin)
                bar.update(
                    task, completed=i + done / of, description=f"{what}: {done:,} of {of:,} steps, {rate:,.0f}/s"
                )

            outcome = run(options, on_progress)
            found.append((options, outcome))
            rows.append(configuration.plain(options) | {"outcome": asdict(outcome) | {"busiest": outcome.busiest}})
            if json_path is not None:
                store.write_json(json_path, rows)
    return found


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=error_console, transient=True)


def _table(found: list[tuple[SimulateOptions, Outcome]]) -> Table:
    """A row per run. What is the same in all of them was said by the user and is left out."""
    columns: dict[str, Callable[[SimulateOptions, Outcome], str]] = {
        "workers": lambda o, r: f"{o.workers:,}",
        "shards": lambda o, r: f"{o.shards:,}",
        "n_push": lambda o, r: str(o.downpour.n_push),
        "bytes/value": lambda o, r: f"{o.model.bytes_per_value:g}",
        "Gbit/s": lambda o, r: f"{o.hosts.gbit:g}",
        "rate": lambda o, r: f"{o.optimizer.rate:g}",
        "steps/s": lambda o, r: f"{r.steps_per_second:,.4g}",
        "efficiency": lambda o, r: f"{r.efficiency:.0%}",
        "lag (95 %)": lambda o, r: f"{r.lag:.1f} ({r.lag_p95:.0f})",
        "busiest": lambda o, r: f"{r.busiest} {r.used.get(r.busiest, 0):.0%}",
        "to target": lambda o, r: _reached(r),
        "updates": lambda o, r: f"{r.updates:,}",
        "deaths": lambda o, r: f"{r.deaths:,}",
        "rolled back": lambda o, r: f"{r.rolled_back:,}",
        "repeated": lambda o, r: f"{r.repeated:,}",
    }
    varied = {n for n in ("n_push", "bytes/value", "Gbit/s", "rate") if len({columns[n](o, r) for o, r in found}) > 1}
    shown = {"workers", "shards", "steps/s", "efficiency", "lag (95 %)", "busiest"} | varied
    if any(o.learning.target is not None for o, _ in found):
        shown |= {"to target", "updates"}
    if any(r.deaths for _, r in found):
        shown |= {"deaths", "rolled back", "repeated"}
    table = Table(header_style="bold", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        if name in shown:
            table.add_column(name, justify="left" if name == "busiest" else "right")
    for o, r in found:
        table.add_row(*(cell(o, r) for name, cell in columns.items() if name in shown))
    return table


def _reached(outcome: Outcome) -> str:
    if outcome.seconds_to_target is None:
        return "diverged" if outcome.diverged else "not reached"
    return f"{outcome.seconds_to_target:,.4g} s"


def _calibrate(path: str, json_path: str | None) -> None:
    from psdevise import store
    from psdevise.simulation import calibrate

    measured = calibrate.read(path)
    with _progress() as bar:
        task = bar.add_task("")

        def on_progress(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, description=f"point {done} of {of}")

        predictions = calibrate.predict(measured, on_progress)
    if json_path is not None:
        store.write_json(json_path, [asdict(p) | {"error": p.error, "known": p.point.known} for p in predictions])
    costs = calibrate.costs(measured)
    names = ("step", "copy_gb", "check_gb", "update_gb", "message", "serve", "call")
    console.print(
        "costs: " + " ".join(f"--set costs.{n}={getattr(costs, n):.4g}" for n in names), highlight=False, soft_wrap=True
    )
    console.print(_predictions(predictions, measured.lags))
    middle, worst = calibrate.errors(predictions)
    console.print(f"points that no cost was taken from: median error {middle:.1%}, largest {worst:.1%}")
    calibrate.check(predictions)


def _predictions(predictions: list[Prediction], lags: dict[tuple[int, int], float]) -> Table:
    caption = "* costs were taken from these points"
    table = Table(header_style="bold", box=box.SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    for name in ("workers", "shards", "step ms", "steps/s", "predicted", "error", "lag", "predicted"):
        table.add_column(name, justify="right")
    for p in predictions:
        lag = lags.get((p.point.workers, p.point.shards))
        table.add_row(
            str(p.point.workers),
            str(p.point.shards),
            f"{p.point.wait * 1e3:g}",
            f"{p.point.rate:.4g}",
            f"{p.rate:.4g}",
            "*" if p.point.known else f"{p.error:+.1%}",
            "" if lag is None else f"{lag:.2f}",
            f"{p.lag:.2f}",
        )
    return table
