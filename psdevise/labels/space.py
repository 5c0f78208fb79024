"""The labels of a data set, the terms that name each, and their places in WordNet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psdevise import store
from psdevise.errors import LabelError


@dataclass(frozen=True)
class LabelSpace:
    """
    Attributes:
        names: the data set's labels.
        terms: label → the terms that name it, the preferred one first.
        wnids: label → its node in the is-a graph; a label outside it is missing here.
    """

    names: tuple[str, ...]
    terms: Mapping[str, tuple[str, ...]]
    wnids: Mapping[str, str]

    @staticmethod
    def of(names: Sequence[str], path: str | None = None) -> LabelSpace:
        """Labels with the terms of the TSV at `path` (columns label, wnid, terms); by itself a label's
        name is its only term. The name itself always comes first. Without a column label the wnids are the
        labels, as in lists of synsets, and are no terms.

        Raises:
            LabelError: a column is missing, a label stands there twice, or a label of the data set does not.
        """
        if path is None:
            return LabelSpace(tuple(names), {n: (n,) for n in names}, {})
        named = "label" in columns_of(path) or "wnid" not in columns_of(path)
        terms: dict[str, tuple[str, ...]] = {}
        wnids: dict[str, str] = {}
        for row in read_tsv(path, ("label",) if named else ("wnid", "terms")):
            label = row["label" if named else "wnid"]
            if label in terms:
                raise LabelError(f"{label!r} stands here twice", where=path)
            listed = [t.strip() for t in (row.get("terms") or "").split(",") if t.strip()]
            terms[label] = tuple(dict.fromkeys([label, *listed] if named else listed))
            if row.get("wnid"):
                wnids[label] = row["wnid"]
        missing = [n for n in names if n not in terms]
        if missing:
            raise LabelError(
                f"{len(missing)} labels of the pictures are not listed: {', '.join(missing[:5])}",
                where=path,
                mend="add a line for each, or set labels.table to null",
            )
        return LabelSpace(tuple(names), {n: terms[n] for n in names}, {n: wnids[n] for n in names if n in wnids})

    @staticmethod
    def read(path: str) -> LabelSpace:
        """All labels of a TSV as above, or of a plain list, one a line."""
        header = columns_of(path)
        if "label" not in header and "wnid" not in header:
            lines = [line.strip() for line in store.read_text(path).splitlines()]
            return LabelSpace.of(list(dict.fromkeys(line for line in lines if line)))
        column = "label" if "label" in header else "wnid"
        return LabelSpace.of([row[column] for row in read_tsv(path, (column,))], path)

    def joined(self, other: LabelSpace) -> LabelSpace:
        """Also the labels of another list; what both have is taken from this one."""
        names = tuple(dict.fromkeys([*self.names, *other.names]))
        return LabelSpace(names, {**other.terms, **self.terms}, {**other.wnids, **self.wnids})

    def all_terms(self) -> list[str]:
        return [term for name in self.names for term in self.terms[name]]


def columns_of(path: str) -> list[str]:
    """The header of a tab-separated table."""
    with io.TextIOWrapper(store.open_read(path), encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\r\n").split("\t")


def read_tsv(path: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a tab-separated table with a header.

    Raises:
        LabelError: one of `columns` is missing, or empty in a line (named).
    """
    reader = csv.DictReader(io.StringIO(store.read_text(path)), delimiter="\t", quoting=csv.QUOTE_NONE)
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise LabelError(
                f"no column {column!r}",
                where=path,
                mend=f"tab-separated, with a header: {', '.join(columns)}",
            )
    rows = []
    for row in reader:
        empty = [column for column in columns if not row[column]]
        if empty:
            raise LabelError(f"line {reader.line_num} has no {empty[0]}", where=path)
        rows.append(row)
    return rows
