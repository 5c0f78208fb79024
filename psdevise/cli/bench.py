"""`psdevise bench`: what the product costs, beside what it is compared with."""

from __future__ import annotations

import importlib

import click
from rich.table import Table

from psdevise.bench.table import Context, Row, check, to_plain
from psdevise.cli.console import console, counted_steps

# name → one line of help; the module is psdevise.bench.NAME and has run(context) -> list[Row].
BENCHMARKS: dict[str, str] = {
    "worker": "training speed beside bare PyTorch processes and DDP; with --full also Ray's example and torch RPC",
    "wire": "pull and push beside memcpy and Adagrad, round trips, sparse rows; as root also between two hosts",
    "scale": "1 to 16 workers that only wait: steps per second, lag, where the server saturates",
    "straggler": "one slow worker of four: time to a loss, beside three workers and synchronous training",
    "memory": "bytes per parameter of server, worker and driver; growth over 20,000 steps",
    "converge": "held-out loss on real pictures (--images) beside one process, W = 1, 2, 4",
    "index": "nearest of 21,841 and 155,000 labels, exact and through faiss; with --full of 1 million",
    "words": "skip-gram beside gensim: words per second and, with --full, quality",
    "word_sizes": "skip-gram by size of the vectors: speed and quality",
    "metrics": "CPU of a scrape, its share of a step, throughput with and without scraping",
}


@click.command(epilog="\b\n" + "\n".join(f"{name:<10} {text}" for name, text in BENCHMARKS.items()))
@click.argument("name", type=click.Choice(list(BENCHMARKS)), metavar="NAME")
@click.option("--json", "json_path", metavar="FILE", help="Write the rows as a JSON array of objects.")
@click.option("--full", is_flag=True, help="The long form: more cases and more systems.")
@click.option("--images", metavar="PARQUET", help="Real pictures, for the benchmarks that learn from them.")
@click.option("--text", metavar="FILE", help="Real text, or for index word vectors trained on it.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
def bench(name: str, json_path: str | None, full: bool, images: str | None, text: str | None, seed: int) -> None:
    """Measure NAME, each system beside the others in paired rounds, and show medians with their intervals.

    \b
    psdevise bench worker --json worker.json
    psdevise bench words --text wikipedia.txt.zst
    """
    from psdevise import store

    module = importlib.import_module(f"psdevise.bench.{name}")
    with counted_steps() as progress:
        bar = progress.add_task(name, total=None)

        def on_progress(done: int, of: int, what: str) -> None:
            progress.update(bar, completed=done, total=of, description=what)
            if not progress.console.is_terminal:  # in a log, where no bar moves
                progress.console.print(f"{name}: {done} of {of}, {what}", highlight=False, soft_wrap=True)

        rows: list[Row] = module.run(Context(full, images, text, seed, on_progress, progress.console.print))
    if json_path is not None:
        store.write_json(json_path, to_plain(rows))
    console.print(table(name, rows))
    check(rows)


def table(name: str, rows: list[Row]) -> Table:
    """The rows as a person reads them: a block per case."""
    found = Table(title=f"psdevise bench {name}", title_justify="left", header_style="bold")
    for heading in ("case", "system", "metric"):
        found.add_column(heading)
    for heading in ("median", "95 % interval", "ratio", "errors"):
        found.add_column(heading, justify="right")
    before = ""
    for row in rows:
        if before and row.case != before:
            found.add_section()
        found.add_row(
            row.case if row.case != before else "",
            row.system,
            f"{row.metric} ({row.unit})" if row.unit not in ("", "1") else row.metric,
            number(row.value),
            f"{number(row.low)} – {number(row.high)}",
            "" if row.ratio is None or row.metric.endswith("_ratio") else f"{row.ratio:.3f} of {row.reference}",
            str(row.errors),
            style="red" if row.errors else "",
        )
        before = row.case
    return found


def number(value: float) -> str:
    """Four significant digits, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
