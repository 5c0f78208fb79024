"""`psdevise neighbors`: the terms nearest to a term."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from psdevise.cli.console import console
from psdevise.cli.vectors import open_vectors


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.argument("terms", nargs=-1, required=True)
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="Neighbours per term.")
def neighbors(run: str, terms: tuple[str, ...], k: int) -> None:
    """Show the terms nearest to TERMS in the word space of the finished run in the folder RUN.

    \b
    psdevise neighbors runs/cifar100 tiger "pickup truck"
    """
    from psdevise import load
    from psdevise.orchestrator.run import part_of

    words_alone = part_of(run, "index") is None and part_of(run, "language") is not None
    neighbours = _of_words(run) if words_alone else load(run).neighbours
    for term in terms:
        found = neighbours(term, k)
        console.print(f"[bold]{term}[/]  " + ", ".join(f"{n} {s:.2f}" for n, s in found), highlight=False)


def _of_words(run: str) -> Callable[[str, int], Sequence[tuple[str, float]]]:
    from psdevise.labels.resolve import ResolveOptions, resolve
    from psdevise.labels.space import LabelSpace

    vectors, cut = open_vectors(run)

    def neighbours(term: str, k: int) -> Sequence[tuple[str, float]]:
        rows, _ = resolve(LabelSpace.of([term]), vectors, ResolveOptions(), None, cut)
        own = cut(term)
        return [pair for pair in vectors.neighbours(rows[0], k + 1) if pair[0] != own][:k]

    return neighbours
