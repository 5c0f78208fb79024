"""Which classes are trained on and which are never seen, with the checks against leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psdevise.errors import LabelError
from psdevise.labels.space import read_list


@dataclass(frozen=True)
class Split:
    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    def check_unseen(self, trained: Sequence[str]) -> None:
        """
        Raises:
            LabelError: a class that counts as unseen was trained on.
        """
        leaked = sorted(set(self.unseen).intersection(trained))
        if leaked:
            raise LabelError(
                f"{len(leaked)} unseen classes were trained on: {', '.join(leaked[:5])}",
                where=self.name,
                mend="take them out of the unseen ones, or train without them",
            )


def read_split(names: Sequence[str], path: str | None) -> Split:
    """Seen and unseen classes; the unseen ones stand in the file at `path`, as `read_list` reads it.

    Raises:
        LabelError: no name, one that is no label, a repeat, or nothing left to train on.
    """
    if path is None:
        return Split("all_seen", tuple(names), ())
    unseen = set(read_names(path, names))
    seen = tuple(n for n in names if n not in unseen)
    if len(seen) < 2:
        raise LabelError("fewer than two classes are left to train on", where=path)
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return Split(stem, seen, tuple(n for n in names if n in unseen))


def read_names(path: str, names: Sequence[str]) -> list[str]:
    """Class names as `read_list` has them, each a label of the pictures."""
    listed = read_list(path)
    known = set(names)
    unknown = [n for n in listed if n not in known]
    if unknown:
        raise LabelError(
            f"not a label of the pictures: {', '.join(map(repr, unknown[:5]))}",
            where=path,
            mend="the names must be those in the pictures' label column",
        )
    return listed
