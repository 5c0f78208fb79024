"""What every benchmark returns, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psdevise.errors import BenchmarkFailed


@dataclass(frozen=True)
class Row:
    """One figure.

    `value` is a median over rounds and (`low`, `high`) its 95 % bootstrap interval, in `unit`. `ratio` is the
    median over rounds of value / `reference`'s value in the same round; its own interval stands in a row of its own
    whose metric ends in `_ratio`. `errors` counts what was wrong in the work itself (a gradient not applied, a torn
    pull, a wrong answer): anything but 0 fails the run.
    """

    benchmark: str
    case: str
    system: str
    metric: str
    value: float
    low: float
    high: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    errors: int = 0


@dataclass(frozen=True)
class Context:
    """full: the long form; images, text: real data, by path; on_progress: called with (done, of, what); on_note: with
    what a reader is to know, such as what had to be left out."""

    full: bool = False
    images: str | None = None
    text: str | None = None
    seed: int = 0
    on_progress: Callable[[int, int, str], None] = lambda done, of, what: None
    on_note: Callable[[str], None] = lambda text: None


def to_plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as the array of objects that `--json` writes."""
    return [asdict(row) for row in rows]


def check(rows: Sequence[Row]) -> None:
    """Refuses figures of work that was not correct.

    Raises:
        BenchmarkFailed: naming the first row whose errors are not 0.
    """
    for row in rows:
        if row.errors:
            raise BenchmarkFailed(
                f"{row.errors} errors in the work of {row.system}, case {row.case}: its figures do not count",
                where=f"bench {row.benchmark}",
                mend="this is a bug of the system named, or of the benchmark",
            )
