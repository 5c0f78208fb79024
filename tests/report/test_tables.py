from __future__ import annotations

from typing import Any

from psdevise.report import markdown
from psdevise.report.tables import figure, pivots
from tests.report import example


def row(**changes: Any) -> dict[str, Any]:
    return example.results()[0] | changes


def cells(line: str) -> list[str]:
    return [c.strip() for c in line.strip("|").split("|")]


def test_a_table_per_pairing_with_systems_as_rows() -> None:
    text = markdown(example.results())
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### Seen pictures among seen classes (n = 240)",
        "### Unseen pictures among unseen classes (DeViSE-0) (n = 240)",
        "### Unseen pictures among all classes (DeViSE+1K) (n = 240)",
        "### Generalised: hit@1 on seen and on unseen pictures among all classes (n = 240)",
    ]
    table = text.split("\n\n")[3].splitlines()
    assert cells(table[0]) == ["system", "hit@1", "hit@5", "hp@5"]
    assert cells(table[2]) == ["devise", "30.8", "58.6", ".308"]
    assert cells(table[3]) == ["softmax", "–", "–", ".000"]
    assert cells(table[5]) == ["*chance*", "4.0", "20.0", ".200"]
    assert cells(table[6]) == ["*ceiling*", "100.0", "100.0", "1.000"]


def test_every_row_of_a_table_is_as_wide_as_its_head_and_fits_a_terminal() -> None:
    for table in markdown(example.results()).split("\n\n")[1::2]:
        lines = table.splitlines()
        assert {len(line) for line in lines} == {len(lines[0])}
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
        assert len(lines[0]) <= 80


def test_only_columns_that_repeat_hit_at_1_are_left_out() -> None:
    rows = [row(), row(metric="hp"), row(metric="class_mean_hit", value=0.1)]
    assert "| hit@1 | class mean |" in markdown(rows)
    assert "hp@1" in markdown([row(metric="hp")])  # nothing to repeat


def test_several_data_sets_and_seeds_stand_apart() -> None:
    text = markdown([row(seed=1), row(seed=2), row(dataset="another")])
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## made up · split one of four · seed 1",
        "## made up · split one of four · seed 2",
        "## another · split one of four · seed 0",
    ]


def test_a_variant_a_foreign_metric_and_a_bar_in_a_name() -> None:
    text = markdown([row(system="a|b", variant="wide", metric="map", k=100, value=0.5)])
    assert "a\\|b (wide)" in text
    assert "map@100" in text
    assert ".500" in text


def test_the_best_of_a_column_is_by_what_is_printed() -> None:
    rows = [row(system=s, value=v) for s, v in (("a", 0.40004), ("b", 0.40001), ("c", 0.3), ("d", None))]
    table = pivots(rows)[0]
    assert table.best(("hit", 1)) == {("a", "default"), ("b", "default")}
    assert pivots([row(system=s) for s in "ab"])[0].best(("hit", 1)) == frozenset()  # all equal
    assert pivots([row(value=None)])[0].best(("hit", 1)) == frozenset()


def test_figures() -> None:
    assert figure(row(value=0.12345)) == "12.3"
    assert figure(row(metric="hp", value=0.5384)) == ".538"
    assert figure(row(metric="hp", value=1.0)) == "1.000"
    assert figure(None) == figure(row(value=None)) == "–"


def test_no_results_no_table() -> None:
    assert markdown([]) == ""
