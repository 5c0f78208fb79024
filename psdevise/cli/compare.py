"""`psdevise compare`: every system of the papers, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from psdevise.cli.console import console, counted_steps

if TYPE_CHECKING:
    from psdevise.compare.cifar100 import Words

F = TypeVar("F", bound=Callable[..., Any])
DATA = click.option(
    "--data",
    envvar="PSDEVISE_DATA",
    default="../shared/data",
    show_default=True,
    metavar="DIR",
    help="Folder that holds cifar100/ and cifar10/; by default $PSDEVISE_DATA.",
)
OUT = click.option(
    "--out", required=True, metavar="DIR", help="Finished cells, tables and figures; goes on from there."
)
SEED = click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of everything random.")
PATCHES = click.option(
    "--patches", default=400_000, show_default=True, type=click.IntRange(100), help="Patches for the atoms."
)
VECTORS = "Word vectors: a finished run's folder, or a file in word2vec, GloVe or Parquet form."


def bases(default: int) -> Callable[[F], F]:
    return click.option(
        "--bases", default=default, show_default=True, type=click.IntRange(2), help="Atoms of the features."
    )


def coding(default: str) -> Callable[[F], F]:
    return click.option(
        "--coding",
        default=default,
        show_default=True,
        type=click.Choice(["triangle", "omp1"]),
        help="triangle: k-means; omp1: matching pursuit with both signs, as Socher's, twice as wide.",
    )


@click.group(epilog="A stopped comparison goes on where it stopped when the same command is given again.")
def compare() -> None:
    """Train and evaluate every system of the papers on the same features, with paired intervals.

    \b
    psdevise compare cifar100 --vectors runs/cifar100 --out compare/cifar100
    psdevise compare cifar10 --vectors runs/words50 --out compare/cifar10
    psdevise compare labels --out compare/labels
    """


@compare.command()
@DATA
@OUT
@SEED
@click.option(
    "--vectors",
    "sources",
    required=True,
    multiple=True,
    metavar="RUN|FILE",
    help=VECTORS + " Further ones add DeViSE and random embeddings of their dimension.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["one_per_superclass", "random_20"]),
    help="Class splits; by default both kinds.",
)
@click.option("--splits", default=5, show_default=True, type=click.IntRange(1, 10), help="Splits of each kind.")
@click.option("--draws", default=3, show_default=True, type=click.IntRange(1), help="Draws of random embeddings.")
@click.option("--train-per-class", type=click.IntRange(2), help="The first N training pictures of each class.")
@bases(400)
@PATCHES
@coding("triangle")
@click.option("--validation-rows", default=5000, show_default=True, type=click.IntRange(1), help="Last rows of train.")
@click.option("--system", "systems", multiple=True, metavar="MODULE:NAME", help="A system of your own beside them.")
@click.option(
    "--run", "runs", multiple=True, metavar="RUN", help="A finished run, for table (ii); further seeds of it."
)
@click.option("--tuning-run", metavar="RUN", help="For its calibration: a run whose core saw no tuning class either.")
def cifar100(
    data: str,
    out: str,
    seed: int,
    sources: tuple[str, ...],
    kinds: tuple[str, ...],
    splits: int,
    draws: int,
    train_per_class: int | None,
    bases: int,
    patches: int,
    coding: str,
    validation_rows: int,
    systems: tuple[str, ...],
    runs: tuple[str, ...],
    tuning_run: str | None,
) -> None:
    """DeViSE, softmax, random embeddings, L2, WSABIE, ConSE, cosine softmax, Socher, Chollet and logistic regression on
    CIFAR-100's class splits: on identical frozen features, and with --run on the trained core of finished runs.

    \b
    psdevise compare cifar100 --vectors runs/cifar100 --out compare/cifar100 --run runs/cifar100 \\
        --tuning-run runs/tuning
    psdevise compare cifar100 --vectors words.bin --out smoke --splits 1 --kind random_20 --train-per-class 40 \\
        --bases 50 --patches 20000 --draws 1
    psdevise compare cifar100 --vectors words.bin --out mine --system mymodel:Prototypes
    """
    from psdevise.compare import cifar100 as comparison
    from psdevise.compare import trained, write
    from psdevise.models.single_layer import SingleLayerOptions

    if tuning_run and not runs:
        raise click.UsageError("--tuning-run calibrates the table of --run; give that too.")
    if runs:  # table (i) may take hours: what is wrong with the runs is said before it
        trained.check(runs, tuning_run, draws, systems, comparison.class_names(data))
    layer = SingleLayerOptions(coding="omp1" if coding == "omp1" else "triangle", bases=bases, patches=patches)
    options = comparison.Options(
        data=data,
        out=out,
        kinds=kinds or comparison.Options.kinds,
        splits=splits,
        draws=draws,
        train_per_class=train_per_class,
        layer=layer,
        systems=systems,
        validation_rows=validation_rows,
        seed=seed,
    )
    with _progress() as on_progress:
        found = comparison.run(options, [_words(source) for source in sources], on_progress)
        own = trained.run(runs, tuning_run, out, draws, systems, on_progress) if runs else None
    console.print(write.cifar100(found, options, own), highlight=False, markup=False, soft_wrap=True)
    console.print(f"tables and figures: {out}", soft_wrap=True)


@compare.command()
@DATA
@OUT
@SEED
@click.option(
    "--vectors", "source", required=True, metavar="RUN|FILE", help=VECTORS + " The paper's have 50 dimensions."
)
@click.option("--pairs", default=45, show_default=True, type=click.IntRange(1, 45), help="Pairs of unseen classes.")
@click.option("--draws", default=5, show_default=True, type=click.IntRange(0), help="Draws of random vectors.")
@click.option("--train-per-class", default=1500, show_default=True, type=click.IntRange(2), help="Training pictures.")
@click.option("--test-per-class", default=1000, show_default=True, type=click.IntRange(2), help="Test pictures.")
@bases(1600)
@PATCHES
@coding("omp1")
@click.option(
    "--penalty",
    "penalties",
    multiple=True,
    type=click.FloatRange(0, min_open=True),
    help="λ of the map; of several each pair's is chosen on training pictures of other pairs. [default: .1, .3, 1, 3]",
)
def cifar10(
    data: str,
    out: str,
    seed: int,
    source: str,
    pairs: int,
    draws: int,
    train_per_class: int,
    test_per_class: int,
    bases: int,
    patches: int,
    coding: str,
    penalties: tuple[float, ...],
) -> None:
    """Socher et al. 2013 on CIFAR-10: each pair of classes unseen in turn, by word vectors and by random ones.

    \b
    psdevise run jobs/words.yaml --set name=words50 --set language.skipgram.dim=50
    psdevise compare cifar10 --vectors runs/words50 --out compare/cifar10
    psdevise compare cifar10 --vectors runs/words50 --out smoke --pairs 5 --train-per-class 100 --test-per-class 100 \\
        --bases 100 --patches 20000
    """
    from psdevise.compare import cifar10 as comparison
    from psdevise.compare import tables10
    from psdevise.models.single_layer import SingleLayerOptions

    layer = SingleLayerOptions(coding="omp1" if coding == "omp1" else "triangle", bases=bases, patches=patches)
    options = comparison.Options(
        data=data,
        out=out,
        pairs=pairs,
        draws=draws,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        layer=layer,
        penalties=penalties or comparison.Options.penalties,
        seed=seed,
    )
    with _progress() as on_progress:
        found = comparison.run(options, _words(source), on_progress)
    console.print(tables10.write(found, options), highlight=False, markup=False, soft_wrap=True)
    console.print(f"tables and figures: {out}", soft_wrap=True)


@compare.command()
@DATA
@OUT
@SEED
@click.option(
    "--k", "ks", multiple=True, type=click.IntRange(1), help="Widths of the label vectors. [default: 32, 64, 128]"
)
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(1), help="Passes over the pictures.")
@click.option("--train-per-class", default=250, show_default=True, type=click.IntRange(2), help="Training pictures.")
@click.option("--scenes", default=12_000, show_default=True, type=click.IntRange(8), help="Training scenes.")
@bases(400)
@PATCHES
@click.option("--validation-rows", default=5000, show_default=True, type=click.IntRange(1), help="Last rows of train.")
def labels(
    data: str,
    out: str,
    seed: int,
    ks: tuple[int, ...],
    epochs: int,
    train_per_class: int,
    scenes: int,
    bases: int,
    patches: int,
    validation_rows: int,
) -> None:
    """Chollet 2016: label vectors from co-occurrence beside logistic regressions, on pictures with many labels.

    \b
    psdevise compare labels --out compare/labels
    psdevise compare labels --out smoke --train-per-class 20 --scenes 400 --bases 30 --patches 20000 --epochs 2
    psdevise compare labels --out wide --k 32 --k 128 --k 256
    """
    from psdevise.compare import labels as comparison
    from psdevise.compare import write_labels
    from psdevise.models.single_layer import SingleLayerOptions

    options = comparison.Options(
        data=data,
        out=out,
        ks=ks or comparison.Options.ks,
        epochs=epochs,
        train_per_class=train_per_class,
        scenes=scenes,
        layer=SingleLayerOptions(coding="triangle", bases=bases, patches=patches),
        validation_rows=validation_rows,
        seed=seed,
    )
    with _progress() as on_progress:
        found = comparison.run(options, on_progress)
    console.print(write_labels.write(found, options), highlight=False, markup=False, soft_wrap=True)
    console.print(f"tables and figures: {out}", soft_wrap=True)


def _words(source: str) -> Words:
    from psdevise.cli.vectors import open_vectors
    from psdevise.compare import cifar100 as comparison

    return comparison.Words(*open_vectors(source), source)


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    with counted_steps() as progress:
        bar = progress.add_task("", total=None)
        shown = ""

        def on_progress(done: int, of: int, what: str) -> None:
            nonlocal shown
            if what != shown:
                shown = what
                progress.reset(bar, total=of, description=what)
            progress.update(bar, completed=done, total=of)

        yield on_progress
