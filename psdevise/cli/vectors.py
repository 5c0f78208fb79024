"""`psdevise data vectors`: word vectors from one form to another, of all terms or of a label set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from psdevise.cli.console import console

if TYPE_CHECKING:
    from psdevise.labels.vectors import WordVectors


@click.command()
@click.argument("source", type=click.Path(exists=True))
@click.argument("out")
@click.option("--labels", metavar="FILE", help="Only the labels of this set (TSV, or one a line), under their names.")
@click.option(
    "--fallback",
    type=click.Choice(["stop", "words"]),
    default="words",
    show_default=True,
    help="For a label whose terms have no vector: stop, or take the mean of its words.",
)
def vectors(source: str, out: str, labels: str | None, fallback: str) -> None:
    """Write the vectors of SOURCE, a finished run's folder or a file, into the file OUT.

    The form follows from the name: .parquet, .bin (word2vec binary), .glove.txt (GloVe), other .txt (word2vec text).
    With --labels each label gets the vector of its term; how it was found is printed.

    \b
    psdevise data vectors runs/cifar100 words.bin
    psdevise data vectors glove.840B.300d.txt labels.parquet --labels cifar100/wordnet.tsv
    """
    from psdevise import config
    from psdevise.labels.resolve import ResolveOptions, resolve, summary
    from psdevise.labels.space import LabelSpace
    from psdevise.labels.vectors import WordVectors

    table, cut = open_vectors(source)
    if labels is not None:
        space = LabelSpace.read(labels)
        options = config.build(ResolveOptions, {"fallback": fallback})
        matrix, rows = resolve(space, table, options, None, cut)
        table = WordVectors(space.names, matrix)
        found = ", ".join(f"{count} {how}" for how, count in summary(rows).items())
        console.print(f"{len(rows)} labels: {found}", highlight=False, soft_wrap=True)
    table.save(out)
    console.print(f"{len(table.terms):,} vectors of {table.dim} dimensions in {out}", highlight=False, soft_wrap=True)


def open_vectors(path: str) -> tuple[WordVectors, Callable[[str], str]]:
    """The vectors of a file or of a run, with their counts if it is one, and how its terms are cut."""
    from psdevise import store
    from psdevise.data.vocabulary import Vocabulary
    from psdevise.errors import DataError
    from psdevise.labels import vectors as word_vectors
    from psdevise.orchestrator.run import part_of

    if not store.exists(store.join(path, "run.json")):
        table = word_vectors.load(path)
        return table, table.term_of
    language = part_of(path, "language")
    if language is None:
        raise DataError("this run has no word vectors yet", where=path, mend="psdevise run goes on with it")
    table = word_vectors.load(store.join(language, "vectors.bin"))
    vocabulary = part_of(path, "vocabulary")
    if vocabulary is None:
        return table, table.term_of
    counted = Vocabulary.load(store.join(vocabulary, "vocabulary.parquet"))
    return word_vectors.WordVectors(table.terms, table.matrix, counted.counts), counted.term_of
