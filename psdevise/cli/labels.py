"""`psdevise labels`: candidate sets for zero-shot tests, and WordNet as tables."""

from __future__ import annotations

import click
from rich.table import Table

from psdevise.cli.console import console

PAPER = {"2": 1589, "3": 7860, "all": 20841}


@click.group()
def labels() -> None:
    """Candidate sets around the classes that a model is trained on."""


@labels.command()
@click.option("--k", "hops_k", type=click.Choice(["2", "3", "all"]), required=True, help="Which set.")
@click.option("--seen", required=True, metavar="FILE", help="Table of the seen classes: a column wnid.")
@click.option("--all", "every", required=True, metavar="FILE", help="Table of all classes: a column wnid.")
@click.option("--is-a", required=True, metavar="FILE", help="Table of edges: columns child, parent, relation.")
@click.option("--compare", is_flag=True, help='Show what else "hop" may mean, with counts, instead of the list.')
def hops(hops_k: str, seen: str, every: str, is_a: str, compare: bool) -> None:
    """Print the unseen wnids near the seen classes, one a line: the k-hop sets of the DeViSE paper.

    A published k-hop set holds what is k − 1 is-a edges from a seen class. Tables are tab-separated, with a header.

    \b
    psdevise labels hops --k 2 --seen synsets_1k.tsv --all synsets_21k.tsv --is-a is_a.tsv > 2-hop.txt
    psdevise labels hops --k 3 --seen synsets_1k.tsv --all synsets_21k.tsv --is-a is_a.tsv --compare
    """
    from psdevise.labels.hops import Lists, published, readings

    lists = Lists.read(seen, every, is_a)
    if not compare:
        click.echo("".join(f"{wnid}\n" for wnid in published(lists, hops_k)), nl=False)  # type: ignore[arg-type]
        return
    table = Table("reading", header_style="bold")
    table.add_column("labels", justify="right")
    for name, count in readings(lists, hops_k).items():  # type: ignore[arg-type]
        table.add_row(name, f"{count:,}")
    table.add_row("printed in the paper", f"{PAPER[hops_k]:,}", style="dim")
    console.print(table)


@labels.command()
@click.option(
    "--unseen",
    required=True,
    metavar="FILE",
    help="Candidate classes: one a line, or a table with a column label or wnid.",
)
@click.option(
    "--trained", required=True, metavar="FILE", multiple=True, help="Classes that a model saw, in the same form."
)
def check(unseen: str, trained: tuple[str, ...]) -> None:
    """Check that no class in --unseen was trained on; exits with 1 and names those that were.

    \b
    psdevise labels check --unseen 2-hop.txt --trained synsets_1k.tsv --trained joint_classes.txt
    """
    from psdevise.labels.space import read_list
    from psdevise.labels.split import Split

    candidates = read_list(unseen)
    for path in trained:
        Split(f"{unseen}, {path}", (), tuple(candidates)).check_unseen(read_list(path))
    console.print(f"none of {len(candidates):,} classes was trained on", highlight=False)


@labels.command()
@click.argument("database", type=click.Path(exists=True))
@click.option("--out", required=True, metavar="FOLDER", help="Where synsets.tsv and is_a.tsv are written.")
@click.option("--only", metavar="FILE", help="Table of wnids: only these, and all that they descend from.")
def wordnet(database: str, out: str, only: str | None) -> None:
    """Write WordNet's nouns as tables of labels and of is-a edges, from the folder of its own DATABASE (data.noun).

    \b
    psdevise labels wordnet /usr/share/wordnet --out wordnet
    psdevise labels wordnet /usr/share/wordnet --out mine --only my_synsets.tsv
    """
    from psdevise.labels.space import read_tsv
    from psdevise.labels.wordnet import WordNet
    from psdevise.store import join, write_text

    found = WordNet.read(database)
    if only is not None:
        found = found.above([row["wnid"] for row in read_tsv(only, ("wnid",))])
    synsets = [f"{wnid}\t{', '.join(terms)}\t{found.glosses[wnid]}" for wnid, terms in found.terms.items()]
    write_text(join(out, "synsets.tsv"), "\n".join(["wnid\tterms\tgloss", *synsets]) + "\n")
    write_text(join(out, "is_a.tsv"), "\n".join(["child\tparent\trelation", *map("\t".join, found.edges)]) + "\n")
    console.print(f"{len(found.terms):,} synsets, {len(found.edges):,} edges in {out}", highlight=False)
