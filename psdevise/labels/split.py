"""Which classes are trained on and which are never seen, with the checks against leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from psdevise import store
from psdevise.errors import LabelError


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
    """Seen and unseen classes; the unseen ones stand in the file at `path`, one a line.

    Raises:
        LabelError: a name that is no label, a repeat, or nothing left to train on.
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
    """Class names as `read_lines` has them, each a label of the pictures."""
    listed = read_lines(path)
    known = set(names)
    unknown = [n for n in listed if n not in known]
    if unknown:
        raise LabelError(
            f"not a label of the pictures: {', '.join(map(repr, unknown[:5]))}",
            where=path,
            mend="the names must be those in the pictures' label column",
        )
    return listed


def read_lines(path: str) -> list[str]:
    """Names, one a line; empty lines and those that begin with # are skipped.

    Raises:
        LabelError: a name stands there twice.
    """
    listed = [line.strip() for line in store.read_text(path).splitlines()]
    listed = [line for line in listed if line and not line.startswith("#")]
    repeated = sorted(n for n, count in Counter(listed).items() if count > 1)
    if repeated:
        raise LabelError(f"repeated: {', '.join(repeated[:5])}", where=path)
    return listed
