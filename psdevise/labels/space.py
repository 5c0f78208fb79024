"""The labels of a data set, the terms that name each, and their places in WordNet."""

from __future__ import annotations

import io
from collections import Counter
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
    def of(names: Sequence[str], path: str | None = None, by_wnid: bool = False) -> LabelSpace:
        """Labels with the terms of the TSV at `path` (columns label, wnid, terms); by itself a label's
        name is its only term. The name itself always comes first. Without a column label, or `by_wnid`, the wnids are
        the labels, as in lists of synsets, and are no terms.

        Raises:
            LabelError: a column is missing, a label stands there twice, or a label of the data set does not.
        """
        if path is None:
            return LabelSpace(tuple(names), {n: (n,) for n in names}, {})
        named = not by_wnid and ("label" in columns_of(path) or "wnid" not in columns_of(path))
        terms: dict[str, tuple[str, ...]] = {}
        wnids: dict[str, str] = {}
        for row in read_tsv(path, ("label",) if named else ("wnid", "terms")):
            label = row["label" if named else "wnid"]
            if label in terms:
                raise LabelError(f"{label!r} stands here twice", where=path)
            listed = [t.strip() for t in (row.get("terms") or "").split(",") if t.strip()]
            terms[label] = tuple(dict.fromkeys([label, *listed] if named else listed))
            if not terms[label]:
                raise LabelError(f"{label!r} has no term", where=path)
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
        return LabelSpace.of(read_list(path), path if name_column(path) else None)

    @staticmethod
    def of_synsets(path: str) -> LabelSpace:
        """All wnids of a TSV as above, whatever labels stand beside them."""
        return LabelSpace.of([row["wnid"] for row in read_tsv(path, ("wnid", "terms"))], path, by_wnid=True)

    def joined(self, other: LabelSpace) -> LabelSpace:
        """Also the labels of another list; what both have is taken from this one."""
        names = tuple(dict.fromkeys([*self.names, *other.names]))
        return LabelSpace(names, {**other.terms, **self.terms}, {**other.wnids, **self.wnids})

    def all_terms(self) -> list[str]:
        return [term for name in self.names for term in self.terms[name]]


def read_list(path: str) -> list[str]:
    """Names: of a table those in its column label, or else wnid; of a plain list one a line, where empty lines and
    those that begin with # are skipped.

    Raises:
        LabelError: no name at all, or one that stands there twice.
    """
    column = name_column(path)
    if column is not None:
        names = [row[column] for row in read_tsv(path, (column,))]
    else:
        lines = [line.strip() for line in store.read_text(path).splitlines()]
        names = [line for line in lines if line and not line.startswith("#")]
    refuse_repeats(names, path)
    return names


def refuse_repeats(names: Sequence[str], where: str) -> None:
    """
    Raises:
        LabelError: no name at all, or one that stands there twice.
    """
    if not names:
        raise LabelError("no name here", where=where, mend="one a line, or a table with a header and a line for each")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise LabelError(
            f"{len(repeated)} names stand here twice: {', '.join(repeated[:5])}",
            where=where,
            mend="leave each there once",
        )


def name_column(path: str) -> str | None:
    """The column of a table that names its rows; None of a plain list."""
    header = columns_of(path)
    return next((column for column in ("label", "wnid") if column in header), None)


def columns_of(path: str) -> list[str]:
    """The header of a tab-separated table."""
    with io.TextIOWrapper(store.open_read(path), encoding="utf-8-sig", errors="replace") as file:
        return file.readline().rstrip("\r\n").split("\t")


def read_tsv(path: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a tab-separated table with a header, without the spaces around a value.

    Raises:
        LabelError: one of `columns` is missing, or empty in a line (named).
    """
    lines = [line.rstrip("\n").split("\t") for line in io.StringIO(store.read_text(path), newline=None)]
    header = lines[0] if lines else []
    for column in columns:
        if column not in header:
            raise LabelError(
                f"no column {column!r}",
                where=path,
                mend=f"tab-separated, with a header: {', '.join(columns)}",
            )
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        row = dict.fromkeys(header, "") | dict(zip(header, map(str.strip, cells), strict=False))
        if not any(row.values()):
            continue
        empty = [column for column in columns if not row[column]]
        if empty:
            raise LabelError(f"line {number} has no {empty[0]}", where=path)
        rows.append(row)
    return rows
