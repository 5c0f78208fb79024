"""`psdevise predict`: names pictures with any list of terms, without retraining."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from psdevise.cli.console import console, error_console

if TYPE_CHECKING:
    from psdevise.evaluation.bulk import Prediction


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False),
    help="Terms, one a line, or a table with a column label; default: the run's classes.",
)
@click.option("--vectors", help="Your own vectors of these labels: word2vec, GloVe, or Parquet (label, vector).")
@click.option("-k", default=5, show_default=True, type=click.IntRange(1), help="Names per picture.")
@click.option("--min-score", type=float, help="A picture whose best score is below this is named “unknown”.")
@click.option(
    "--out", help="Write Parquet (id, labels, scores) here; needed for a data set, goes on if it was stopped."
)
@click.option("--workers", type=click.IntRange(1), help="Spread a data set over so many processes of a Ray cluster.")
@click.option("--address", help="--workers: the Ray cluster; default: the job's own, or one on this machine.")
def predict(
    run: str,
    images: tuple[str, ...],
    labels: str | None,
    vectors: str | None,
    k: int,
    min_score: float | None,
    out: str | None,
    workers: int | None,
    address: str | None,
) -> None:
    """Name IMAGES (files, or one Parquet data set) with the finished run in the folder RUN.

    Scores are cosines between picture and term, from -1 to 1.

    \b
    psdevise predict runs/quickstart photo.png
    psdevise predict runs/cifar100 a.jpg b.jpg --labels terms.txt -k 3
    psdevise predict runs/cifar100 pictures.parquet --out names.parquet --min-score 0.2
    psdevise predict /shared/runs/cifar100 s3://bucket/pictures --out s3://bucket/names.parquet --workers 16
    """
    from psdevise.evaluation.bulk import LoadTagger, Prediction
    from psdevise.labels.space import read_list

    names = None if labels is None else read_list(labels)
    whole = len(images) == 1 and (images[0].endswith(".parquet") or out is not None)
    if whole and out is None:
        raise click.UsageError("a data set needs --out FILE.parquet")
    if workers is not None and not whole:
        raise click.UsageError("--workers is for one data set, with --out FILE.parquet")
    if whole and out is not None:
        wanted = Prediction(images[0], out, None if names is None else tuple(names), k, min_score)
        _bulk(run, vectors, wanted, workers, address)
        return
    tagger = LoadTagger(run, vectors)()
    for path, found in zip(images, tagger.predict(images, names, k), strict=True):
        console.print(f"[bold]{path}[/]", highlight=False)
        if min_score is not None and found[0].score < min_score:
            console.print(f"  unknown ({found[0].label} {found[0].score:.3f})", highlight=False)
            continue
        for name, score in found:
            console.print(f"  {score:6.3f}  {name}", highlight=False)


def _bulk(run: str, vectors: str | None, wanted: Prediction, workers: int | None, address: str | None) -> None:
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    from psdevise.evaluation.bulk import LoadTagger, predict_table

    columns = (SpinnerColumn(), TextColumn("pictures"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        make = LoadTagger(_absolute(run), None if vectors is None else _absolute(vectors))
        if workers is None:
            n = predict_table(make(), wanted, show)
        else:
            from psdevise.runtime.job import ClusterOptions
            from psdevise.runtime.naming import predict_on_cluster

            wanted = replace(wanted, table=_absolute(wanted.table), out=_absolute(wanted.out))
            cluster = ClusterOptions(address=address, num_workers=workers)
            n = predict_on_cluster(
                make, wanted, cluster, show, lambda reason: bar.console.print(f"a worker is replaced: {reason}")
            )
    console.print(f"{n} pictures named in {wanted.out}", highlight=False)


def _absolute(path: str) -> str:
    """As processes elsewhere find it."""
    return path if "://" in path else os.path.abspath(path)
