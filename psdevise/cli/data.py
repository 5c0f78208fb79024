"""`psdevise data`: pictures or text as Parquet, once; vectors in any form."""

from __future__ import annotations

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from psdevise.cli.console import console, error_console
from psdevise.cli.vectors import vectors


@click.group()
def data() -> None:
    """Prepare pictures or text as Parquet (an interrupted conversion goes on with the same command), or vectors."""


@data.command()
@click.argument("source")
@click.argument("out")
@click.option("--part", type=click.Choice(["train", "test"]), default="train", help="Of CIFAR's archives.")
@click.option("--names", help="File of CIFAR's class names, one a line, if the archive has none.")
@click.option("--id", "id_column", default="id", show_default=True, help="Column of ids in a table.")
@click.option("--image", "image_column", default="image", show_default=True, help="Column of pictures or their paths.")
@click.option("--labels", "labels_column", default="labels", show_default=True, help="Column of a label or a list.")
@click.option("--resize", type=click.IntRange(8), help="Resize the shorter side to this many pixels.")
@click.option("--seed", default=0, show_default=True, help="Of the shuffled order.")
@click.option("--max-broken", default=0.01, show_default=True, help="Share of pictures that may be broken.")
@click.option("--part-rows", default=10_000, show_default=True, help="Pictures in a file.")
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1))
def images(source: str, out: str, **options: object) -> None:
    """Convert SOURCE to a folder OUT of Parquet parts in an order shuffled over the whole set.

    SOURCE is a folder of class folders, of class tars (n01440764.tar), or such a folder as one tar, as ImageNet comes;
    CIFAR's binary archive; a CSV, JSON-lines or Parquet table of image
    paths and labels, or Parquet with encoded images. Broken pictures are skipped and listed in
    OUT/manifest.json.

    \b
    psdevise data images photos/ photos.parquet.d
    psdevise data images ILSVRC2012_img_train.tar imagenet/train --resize 256 --part-rows 100000
    psdevise data images cifar-100-binary.tar.gz cifar100/test --part test
    psdevise data images pictures.csv out/ --image path --labels label --resize 256
    """
    from psdevise import config
    from psdevise.data.prepare import PrepareOptions, prepare

    chosen = config.build(PrepareOptions, {"source": source, "out": out, **options})
    with _bar("pictures") as (bar, task):
        manifest = prepare(chosen, lambda done, of: bar.update(task, completed=done, total=of))
    twins, classes = manifest["twins"], len(manifest["classes"])
    console.print(
        f"{manifest['rows']} pictures of {classes} classes in {out}; {len(manifest['skipped'])} skipped,"
        f" {twins['repeated']} repeated ({twins['contradictory']} with other labels)",
        highlight=False,
        soft_wrap=True,
    )


@data.command()
@click.argument("source")
@click.argument("out")
@click.option("--column", help="Where SOURCE is a table: its text column.")
@click.option("--labels", multiple=True, help="Label terms (TSV, or one a line): merged, kept however rare.")
@click.option("--min-count", default=5, show_default=True, type=click.IntRange(1))
@click.option("--max-terms", type=click.IntRange(2), help="At most so many terms, the most frequent ones.")
@click.option("--phrases", is_flag=True, help="Also find frequent word pairs (gensim Phrases).")
@click.option("--tokenizer", default="psdevise.data.tokenizer:words", show_default=True, help="module:function")
@click.option("--seed", default=0, show_default=True, help="Of the shuffled order of sentences.")
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1))
def text(source: str, out: str, column: str | None, labels: tuple[str, ...], seed: int, **options: object) -> None:
    """Count the terms of SOURCE and write it as encoded sentences into the folder OUT.

    SOURCE is plain text, gz, bz2, xz or zst, a table's column, or a Wikipedia XML dump.

    \b
    psdevise data text wiki.txt.zst corpus/ --labels classes.txt
    psdevise data text enwiki-latest-pages-articles.xml.bz2 corpus/ --phrases --max-terms 1000000
    """
    from psdevise import config
    from psdevise.data import prepare_text
    from psdevise.data.vocabulary import VocabularyOptions
    from psdevise.labels.space import LabelSpace

    chosen = config.build(VocabularyOptions, options)
    keep = [term for path in labels for term in LabelSpace.read(path).all_terms()]
    with _bar("words, all passes") as (bar, task):
        found = prepare_text.prepare(
            source, out, chosen, keep, column, seed, lambda done, of: bar.update(task, completed=done, total=of)
        )
    console.print(
        f"{found['words']} words, {found['terms']} terms, {found['sentences']} sentences in {out}"
        + (f"; {found['labels_found']} of {len(keep)} label terms occur" if keep else ""),
        highlight=False,
        soft_wrap=True,
    )


data.add_command(vectors)


class _bar:
    def __init__(self, what: str) -> None:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=error_console)

    def __enter__(self) -> tuple[Progress, TaskID]:
        self._progress.start()
        return self._progress, self._progress.add_task("", total=None)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
