"""`psdevise neighbors`: the terms nearest to a term."""

from __future__ import annotations

import click

from psdevise.cli.console import console


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

    tagger = load(run)
    for term in terms:
        found = tagger.neighbours(term, k)
        console.print(f"[bold]{term}[/]  " + ", ".join(f"{n} {s:.2f}" for n, s in found), highlight=False)
