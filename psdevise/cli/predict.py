"""`psdevise predict`: names pictures with any list of terms, without retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from psdevise.cli.console import console, error_console

if TYPE_CHECKING:
    from psdevise.tagger import Tagger


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False),
    help="File of terms, one a line; default: the run's classes.",
)
@click.option("--vectors", help="Your own vectors of these labels: word2vec, GloVe, or Parquet (label, vector).")
@click.option("-k", default=5, show_default=True, type=click.IntRange(1), help="Names per picture.")
@click.option("--min-score", type=float, help="A picture whose best score is below this is named “unknown”.")
@click.option(
    "--out", help="Write Parquet (id, labels, scores) here; needed for a data set, goes on if it was stopped."
)
def predict(
    run: str,
    images: tuple[str, ...],
    labels: str | None,
    vectors: str | None,
    k: int,
    min_score: float | None,
    out: str | None,
) -> None:
    """Name IMAGES (files, or one Parquet data set) with the finished run in the folder RUN.

    Scores are cosines between picture and term, from -1 to 1.

    \b
    psdevise predict runs/quickstart photo.png
    psdevise predict runs/cifar100 a.jpg b.jpg --labels terms.txt -k 3
    psdevise predict runs/cifar100 pictures.parquet --out names.parquet --min-score 0.2
    """
    from psdevise import load
    from psdevise.labels import vectors as word_vectors
    from psdevise.store import read_text

    tagger = load(run)
    names = None
    if labels is not None:
        names = [line.strip() for line in read_text(labels).splitlines() if line.strip() and line[0] != "#"]
    if vectors is not None:
        tagger = tagger.with_vectors(word_vectors.load(vectors))
    if len(images) == 1 and (images[0].endswith(".parquet") or out is not None):
        _bulk(tagger, images[0], names, k, min_score, out)
        return
    for path, found in zip(images, tagger.predict(images, names, k), strict=True):
        console.print(f"[bold]{path}[/]", highlight=False)
        if min_score is not None and found[0].score < min_score:
            console.print(f"  unknown ({found[0].label} {found[0].score:.3f})", highlight=False)
            continue
        for name, score in found:
            console.print(f"  {score:6.3f}  {name}", highlight=False)


def _bulk(
    tagger: Tagger, table: str, names: list[str] | None, k: int, min_score: float | None, out: str | None
) -> None:
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    from psdevise.evaluation.bulk import predict_table

    if out is None:
        raise click.UsageError("a data set needs --out FILE.parquet")
    columns = (SpinnerColumn(), TextColumn("pictures"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console) as bar:
        task = bar.add_task("", total=None)
        n = predict_table(
            tagger,
            table,
            out,
            names,
            k,
            min_score,
            lambda done, of: bar.update(task, completed=done, total=of),
        )
    console.print(f"{n} pictures named in {out}", highlight=False)
