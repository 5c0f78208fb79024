"""`psdevise search`: the pictures nearest to a term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from psdevise.cli.console import console, error_console

if TYPE_CHECKING:
    from psdevise.evaluation.retrieval import Match


@click.command()
@click.argument("terms", nargs=-1, required=True)
@click.option("--images", required=True, metavar="DATA", help="Parquet, a prepared folder, or folders of pictures.")
@click.option(
    "--run", metavar="RUN", help="Folder of a finished run; default: the first of TERMS, or the newest in runs/."
)
@click.option("--vectors", help="Your own vectors of these terms: word2vec, GloVe, or Parquet (label, vector).")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="Pictures per term.")
@click.option("--sheet", metavar="FILE", help="Contact sheet: a .png, or an .html page.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of the table.")
def search(
    terms: tuple[str, ...],
    images: str,
    run: str | None,
    vectors: str | None,
    k: int,
    sheet: str | None,
    as_json: bool,
) -> None:
    """Find the pictures nearest to each of TERMS, also terms that were never trained on.

    Scores are cosines between picture and term, from -1 to 1.

    \b
    psdevise search okapi "pickup truck" --images pictures.parquet --run runs/cifar100 --sheet found.png
    psdevise search runs/cifar100 okapi --images photos/ -k 20 --sheet found.html
    """
    import json

    from psdevise.evaluation.bulk import LoadTagger
    from psdevise.evaluation.retrieval import search as search_pictures
    from psdevise.report.sheet import FORMS
    from psdevise.report.sheet import write as write_sheet

    if sheet is not None and not sheet.lower().endswith(FORMS):
        raise click.UsageError(f"--sheet {sheet}: a {' or '.join(FORMS)} file")
    if run is None:
        run, terms = _run_of(terms)
    if not terms:
        raise click.UsageError("give at least one term")
    tagger = LoadTagger(run, vectors)()
    columns = (SpinnerColumn(), TextColumn("pictures"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True) as bar:
        task = bar.add_task("", total=None)
        found = search_pictures(
            tagger, images, list(dict.fromkeys(terms)), k, lambda done, of: bar.update(task, completed=done, total=of)
        )
    if as_json:
        rows = [
            {"term": term, "rank": rank, "id": match.id, "labels": list(match.labels), "score": match.score}
            for term, matches in found.items()
            for rank, match in enumerate(matches, 1)
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        console.print(_table(found))
    if sheet is not None:
        write_sheet(sheet, found)


def _table(found: dict[str, list[Match]]) -> Table:
    table = Table("term", "picture", "its labels", header_style="bold")
    table.add_column("score", justify="right")
    for term, matches in found.items():
        for rank, match in enumerate(matches):
            table.add_row(term if rank == 0 else "", match.id, ", ".join(match.labels), f"{match.score:.3f}")
        table.add_section()
    return table


def _run_of(terms: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The run's folder and the terms: it stands before them, or is the newest finished one."""
    from psdevise import store
    from psdevise.store import exists, join

    if exists(join(terms[0], "run.json")):
        return terms[0], terms[1:]
    runs = [join("runs", name) for name in store.listing("runs") if exists(join("runs", name, "tagger.json"))]
    if not runs:
        raise click.UsageError("no finished run in runs/: give --run RUN")
    return max(runs, key=lambda folder: float(store.read_json(join(folder, "run.json")).get("started", 0))), terms
