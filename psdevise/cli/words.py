"""`psdevise evaluate words`: what word vectors are worth, before any picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from psdevise.cli.console import console, error_console
from psdevise.cli.vectors import open_vectors

PAIR_SETS = {"wordsim": "WordSim-353", "simlex": "SimLex-999", "men": "MEN", "rare": "RareWords"}


@click.command()
@click.argument("vectors", type=click.Path(exists=True))
@click.argument("terms", nargs=-1)
@click.option("--wordsim", metavar="FILE", help="WordSim-353: two words and a score a line.")
@click.option("--simlex", metavar="FILE", help="SimLex-999, of the same form.")
@click.option("--men", metavar="FILE", help="MEN, of the same form.")
@click.option("--rare", metavar="FILE", help="RareWords, of the same form.")
@click.option("--analogies", metavar="FILE", help="Questions of four words, in sections (questions-words).")
@click.option("--labels", "label_files", metavar="FILE", multiple=True, help="Label set: TSV or a label a line.")
@click.option("--neighbors", "asked", metavar="TERM...", multiple=True, help="Show the terms nearest to each TERM.")
@click.option("-k", default=5, show_default=True, type=click.IntRange(1), help="Neighbours per term.")
@click.option("--restrict", default=30_000, show_default=True, type=click.IntRange(1), help="Terms for analogies.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def words(
    vectors: str,
    terms: tuple[str, ...],
    analogies: str | None,
    label_files: tuple[str, ...],
    asked: tuple[str, ...],
    k: int,
    restrict: int,
    as_json: bool,
    **pair_files: str | None,
) -> None:
    """Evaluate VECTORS: a finished run's folder, or a file in word2vec, GloVe or Parquet form.

    Gives Spearman's rank correlation with human judgements and accuracy on analogies, each over the questions whose
    words have vectors (how many stands beside it), nearest neighbours, and which labels of a set have a vector. How
    often each term occurs is known for runs.

    \b
    psdevise evaluate words runs/cifar100 --wordsim wordsim353.tsv --men EN-MEN-TR-3k.txt
    psdevise evaluate words glove.txt --labels cifar100/wordnet.tsv --neighbors tiger "pickup truck" streetcar
    """
    from psdevise.evaluation import words as evaluation
    from psdevise.labels.space import LabelSpace

    if terms and not asked:
        raise click.UsageError(f"what is {terms[0]!r}? Terms follow --neighbors.")
    table, cut = open_vectors(vectors)
    found: dict[str, Any] = {"terms": len(table.terms), "dim": table.dim}
    found["similarity"] = {
        PAIR_SETS[name]: asdict(evaluation.similarity(table, evaluation.read_pairs(path)))
        for name, path in pair_files.items()
        if path is not None
    }
    if analogies is not None:
        columns = (TextColumn("analogies"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=error_console, transient=True) as bar:
            task = bar.add_task("")
            sections = evaluation.read_analogies(analogies)
            answered = evaluation.analogies(
                table, sections, restrict, lambda done, of: bar.update(task, completed=done, total=of)
            )
        found["analogies"] = [asdict(section) for section in answered]
    found["coverage"] = {
        path: [asdict(row) for row in evaluation.coverage(table, LabelSpace.read(path), cut)] for path in label_files
    }
    found["neighbors"] = {term: _neighbours(table, cut(term), k) for term in (*asked, *terms)}
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _show(found)


def _neighbours(table: Any, term: str, k: int) -> list[tuple[str, float]] | None:
    if term not in table:
        return None
    near = table.neighbours(table.vector(term), k + 1)
    return [(name, round(cosine, 4)) for name, cosine in near if name != term][:k]


def _show(found: dict[str, Any]) -> None:
    console.print(f"{found['terms']:,} terms, {found['dim']} dimensions", highlight=False)
    if found["similarity"] or "analogies" in found:
        table = Table(header_style="bold")
        for heading in ("set", "measure", "value", "covered"):
            table.add_column(heading, justify="right" if heading in ("value", "covered") else "left")
        for name, row in found["similarity"].items():
            value = "–" if row["value"] is None else f"{row['value']:.3f}"
            table.add_row(name, "Spearman", value, f"{row['covered']} of {row['total']}")
        for row in _with_total(found.get("analogies", [])):
            value = f"{row['right'] / row['covered']:.3f}" if row["covered"] else "–"
            table.add_row(row["section"], "accuracy", value, f"{row['covered']} of {row['total']}")
        console.print(table)
    for path, rows in found["coverage"].items():
        first = sum(row["first"] for row in rows)
        named = sum(row["found"] for row in rows)
        console.print(
            f"{path}: {named} of {len(rows)} labels have a vector ({named / max(len(rows), 1):.1%});"
            f" {first} by their first term ({first / max(len(rows), 1):.1%})",
            highlight=False,
            soft_wrap=True,
        )
        counted = ["–" if not r["found"] else "" if r["count"] is None else f"{r['count']:,}" for r in rows]
        listed = [f"{row['term']} {count}".strip() for row, count in zip(rows, counted, strict=True)]
        console.print("  " + " · ".join(listed), highlight=False, style="dim")
    for term, near in found["neighbors"].items():
        text = "no vector" if near is None else ", ".join(f"{name} {cosine:.2f}" for name, cosine in near)
        console.print(f"[bold]{term}[/]  {text}", highlight=False)


def _with_total(sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(sections) < 2:
        return sections
    whole = {key: sum(section[key] for section in sections) for key in ("right", "covered", "total")}
    return [*sections, {"section": "all analogies", **whole}]
