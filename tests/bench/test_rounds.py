from __future__ import annotations

import statistics

import pytest

from psdevise.bench.machine import figures
from psdevise.bench.rounds import Rounds, median, paired
from psdevise.bench.table import Row, check, to_plain
from psdevise.cli.bench import table
from psdevise.errors import BenchmarkFailed

KEYS = ["benchmark", "case", "system", "metric", "value", "low", "high", "unit", "reference", "ratio", "errors"]


def test_every_system_has_one_turn_a_round_and_the_first_turn_goes_round() -> None:
    turns: list[tuple[int, str]] = []

    def system(name: str):  # type: ignore[no-untyped-def]
        def turn(number: int) -> float:
            turns.append((number, name))
            return float(len(turns))

        return turn

    found = paired({n: system(n) for n in "abc"}, 4)
    assert [n for r, n in turns if r == 0] == ["a", "b", "c"]
    assert [n for r, n in turns if r == 1] == ["b", "c", "a"]
    assert [n for r, n in turns if r == 3] == ["a", "b", "c"]
    assert found.values["a"] == [1.0, 6.0, 8.0, 10.0]


def test_the_ratio_is_the_median_within_rounds_not_of_medians() -> None:
    rounds = Rounds({"bare": [1.0, 10.0, 100.0], "ours": [2.0, 9.0, 300.0]})
    bare, ours, ratio = rounds.rows("b", "c", "speed", "1/s", "bare")
    assert bare.ratio == 1.0
    assert ours.value == 9.0
    assert ours.ratio == 2.0, "2, .9 and 3: the median is 2, where 9 / 10 would be .9"
    assert (ratio.metric, ratio.value, ratio.reference) == ("speed_ratio", 2.0, "bare")
    assert ratio.low == 0.9
    assert ratio.high == 3.0


def test_the_interval_holds_the_median_and_shrinks_with_more_rounds() -> None:
    few, many = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0] * 20
    assert median(few)[0] == median(many)[0] == statistics.median(few)
    assert median(few)[1] <= 3.0 <= median(few)[2]
    assert median(many)[2] - median(many)[1] < median(few)[2] - median(few)[1]


def test_rows_have_the_keys_that_others_read_and_errors_fail_the_run() -> None:
    good, bad = Row("b", "c", "s", "m", 1.0, 0.9, 1.1, "s"), Row("b", "c", "s", "m", 1.0, 0.9, 1.1, "s", errors=2)
    assert list(to_plain([good])[0]) == KEYS
    check([good])
    with pytest.raises(BenchmarkFailed, match="2 errors"):
        check([good, bad])
    assert table("b", [good, bad]).row_count == 2


def test_the_machine_has_figures_of_its_own() -> None:
    rows = figures("wire")
    assert [row.case for row in rows] == ["machine", "machine"]
    assert all(0 < row.low <= row.value <= row.high for row in rows)
