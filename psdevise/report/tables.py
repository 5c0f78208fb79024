"""Results as tables: a pivot per pairing of pictures and candidates, and the pivots as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Column = tuple[str, int | None]  # metric, k
System = tuple[str, str]  # system, variant

TITLES = {
    ("seen", "seen"): "Seen pictures among seen classes",
    ("unseen", "unseen"): "Unseen pictures among unseen classes (DeViSE-0)",
    ("unseen", "seen+unseen"): "Unseen pictures among all classes (DeViSE+1K)",
    ("seen", "seen+unseen"): "Seen pictures among all classes",
    ("seen+unseen", "unseen"): "Pictures nearest to each unseen class, among all",
    ("seen+unseen", "seen+unseen"): "Generalised: hit@1 on seen and on unseen pictures among all classes",
}
PER_CENT = ("hit", "class_mean_hit", "precision", "harmonic", "harmonic_calibrated")  # others are printed as shares
HEADINGS = {
    "class_mean_hit": "class mean",
    "harmonic": "harmonic mean",
    "harmonic_calibrated": "harmonic, calibrated",
    "precision": "mean precision",
    "ausuc": "area under S–U curve",
}


@dataclass(frozen=True)
class Pivot:
    """Systems as rows, metric@k as columns, of one data set, split, seed, and pairing."""

    group: tuple[str, str, int]  # dataset, split, seed
    title: str
    n: int
    columns: tuple[Column, ...]
    systems: tuple[System, ...]
    cells: dict[tuple[System, Column], Row]

    def row(self, system: System, column: Column) -> Row | None:
        return self.cells.get((system, column))

    def reference(self, column: Column) -> Row | None:
        """The row whose chance and ceiling are printed: of the first system that has a figure here (a system
        that cannot name all candidates has others, which stand in results.json)."""
        rows = [r for s in self.systems if (r := self.row(s, column)) is not None]
        return next((r for r in rows if r["value"] is not None), rows[0] if rows else None)

    def best(self, column: Column) -> frozenset[System]:
        """The systems with the highest printed figure; none where all are equal."""
        printed = {
            s: (float(r["value"]), figure(r))
            for s in self.systems
            if (r := self.row(s, column)) is not None and r["value"] is not None
        }
        if not printed:
            return frozenset()
        top = max(printed.values())[1]
        best = frozenset(s for s, (_, text) in printed.items() if text == top)
        return best if len(best) < len(printed) else frozenset()


def pivots(results: Sequence[Row]) -> list[Pivot]:
    """In the order of the data sets, splits and seeds found, and of TITLES inside; others' pairings last."""
    found = []
    for group in _distinct((r["dataset"], r["split"], r["seed"]) for r in results):
        rows = [r for r in results if (r["dataset"], r["split"], r["seed"]) == group]
        pairings = _distinct((r["images"], r["candidates"]) for r in rows)
        for pairing in sorted(pairings, key=_place):
            inside = [r for r in rows if (r["images"], r["candidates"]) == pairing]
            title = TITLES.get(pairing, "{} pictures among {} classes".format(*pairing).capitalize())
            found.append(
                Pivot(
                    group,
                    title,
                    max(int(r["n"]) for r in inside),
                    tuple(_distinct((r["metric"], r["k"]) for r in inside)),
                    tuple(_distinct((r["system"], r["variant"]) for r in inside)),
                    {((r["system"], r["variant"]), (r["metric"], r["k"])): r for r in inside},
                )
            )
    return found


def markdown(results: Sequence[Row]) -> str:
    """A table per pairing, narrow enough for a terminal.

    Per cent, but hp@k and areas as shares, as the papers print them; – where a system cannot answer. Left
    out is what repeats a column: hp@1 is hit@1, and so is the class mean where classes have equally many
    pictures.
    """
    tables = pivots(results)
    several = len({t.group for t in tables}) > 1
    parts, last = [], None
    for table in tables:
        if several and table.group != last:
            last = table.group
            parts.append("## {} · split {} · seed {}".format(*table.group))
        parts.append(_markdown(table))
    return "\n\n".join(parts)


def figure(row: Row | None, key: str = "value") -> str:
    """`34.0` per cent or `.538`, – where there is none."""
    if row is None or row.get(key) is None:
        return "–"
    value = float(row[key])
    return f"{100 * value:.1f}" if row["metric"] in PER_CENT else f"{value:.3f}".removeprefix("0")


def heading(column: Column) -> str:
    metric, k = column
    name = HEADINGS.get(metric, metric)
    return name if k is None or metric in HEADINGS else f"{name}@{k}"


def system_name(system: System) -> str:
    name, variant = system
    return name if variant == "default" else f"{name} ({variant})"


def _markdown(table: Pivot) -> str:
    columns = [c for c in table.columns if not _repeats(table, c)]
    lines = [["system", *map(heading, columns)]]
    for system in table.systems:
        lines.append([system_name(system), *(figure(table.row(system, c)) for c in columns)])
    for extra in ("chance", "ceiling"):
        values = [figure(table.reference(c), extra) for c in columns]
        if any(v != "–" for v in values):
            lines.append([f"*{extra}*", *values])
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])])
    body = ["| " + " | ".join([line[0].ljust(widths[0]), *map(_right, line[1:], widths[1:])]) + " |" for line in lines]
    return "\n".join([f"### {table.title} (n = {table.n})", "", body[0], f"|{rule}|", *body[1:]])


def _repeats(table: Pivot, column: Column) -> bool:
    hit: Column = ("hit", 1)
    if hit not in table.columns or column not in (("hp", 1), ("class_mean_hit", 1)):
        return False
    if column[0] == "hp":
        return True
    return all(figure(table.row(s, column)) in (figure(table.row(s, hit)), "–") for s in table.systems)


_right: Callable[[str, int], str] = str.rjust


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _place(pairing: tuple[str, str]) -> int:
    return list(TITLES).index(pairing) if pairing in TITLES else len(TITLES)
