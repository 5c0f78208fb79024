"""Candidate sets: the published counts, a small tree counted by hand, and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from psdevise.cli.main import exit_code
from psdevise.cli.main import psdevise as command
from psdevise.errors import LabelError
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.hops import Hops, Lists, published, readings
from psdevise.labels.space import LabelSpace
from psdevise.labels.wordnet import WordNet

#        root
#       /    \
#     a       b
#    / \      |
#   a1  a2    b1
#   |
#   a11
EDGES = [("a", "root"), ("b", "root"), ("a1", "a"), ("a2", "a"), ("b1", "b"), ("a11", "a1")]


def tables(folder: Path, seen: list[str], every: list[str], edges: list[tuple[str, str]]) -> list[str]:
    found = []
    for name, lines in {
        "seen": ["wnid", *seen],
        "all": ["wnid", *every],
        "is-a": ["child\tparent\trelation", *(f"{c}\t{p}\thypernym" for c, p in edges)],
    }.items():
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        found.append(str(folder / f"{name}.tsv"))
    return found


EVERY = ["root", "a", "b", "a1", "a2", "b1", "a11"]


@pytest.mark.parametrize(
    ("k", "expected"),
    [("2", ["a", "a11"]), ("3", ["root", "a", "a2", "a11"]), ("all", [w for w in EVERY if w != "a1"])],
)
def test_a_small_tree(tmp_path: Path, k: Hops, expected: list[str]) -> None:
    assert published(Lists.read(*tables(tmp_path, ["a1"], EVERY, EDGES)), k) == expected


@pytest.mark.parametrize(("k", "count"), [("2", 1549), ("3", 7860), ("all", 20_842)])
def test_the_published_sets_come_out_exactly(shared_data: Path, k: Hops, count: int) -> None:
    folder = shared_data / "imagenet"
    paths = [str(folder / name) for name in ("synsets_1k.tsv", "synsets_21k.tsv", "is_a.tsv")]
    arguments = ["labels", "hops", "--k", k, "--seen", paths[0], "--all", paths[1], "--is-a", paths[2]]
    shown = CliRunner().invoke(command, arguments)
    lines = shown.stdout.splitlines()
    assert len(lines) == len(set(lines)) == count
    assert all(len(line) == 9 and line.startswith("n") for line in lines)
    compared = CliRunner().invoke(command, [*arguments, "--compare"])
    assert f"{count:,}" in compared.stdout
    assert {"2": "1,589", "3": "7,860", "all": "20,841"}[k] in compared.stdout


def test_other_readings_are_counted(tmp_path: Path) -> None:
    found = readings(Lists.read(*tables(tmp_path, ["a1"], EVERY, EDGES)), "2")
    assert found["published"] == found["≤ 1 edges, any direction, with instances"] == 2
    assert found["≤ 2 edges, up then down, hypernyms"] == 4


@pytest.mark.parametrize(
    ("seen", "every", "edges", "problem"),
    [
        (["a1", "a1"], EVERY, EDGES, "twice: a1"),
        (["a1"], [*EVERY, "b"], EDGES, "twice: b"),
        (["a1", "x9"], EVERY, EDGES, "not in the is-a table: x9"),
        (["a1"], EVERY, [*EDGES, ("a", "a11")], "cycle"),
        (["a1"], EVERY, [*EDGES, ("a1", "a1")], "cycle"),
        ([], EVERY, EDGES, "seen.tsv: no name"),
        (["a1"], [], EDGES, "all.tsv: no name"),
    ],
)
def test_bad_lists_are_named(
    tmp_path: Path, seen: list[str], every: list[str], edges: list[tuple[str, str]], problem: str
) -> None:
    with pytest.raises(LabelError, match=problem):
        Lists.read(*tables(tmp_path, seen, every, edges))


def test_a_relation_of_another_name_is_refused(tmp_path: Path) -> None:
    paths = tables(tmp_path, ["a1"], EVERY, EDGES)
    text = (tmp_path / "is-a.tsv").read_text()
    (tmp_path / "is-a.tsv").write_text(text.replace("hypernym", "isa"))
    with pytest.raises(LabelError, match="'isa' is no relation"):
        Lists.read(*paths)
    (tmp_path / "is-a.tsv").write_text("\ufeff" + text.replace("\thypernym", "").replace("\trelation", ""))
    assert published(Lists.read(*paths), "2") == ["a", "a11"]


def test_leaks_are_refused_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unseen.txt").write_text("a\nb\n")
    (tmp_path / "trained.txt").write_text("c\n")
    arguments = [
        "labels",
        "check",
        "--unseen",
        str(tmp_path / "unseen.txt"),
        "--trained",
        str(tmp_path / "trained.txt"),
    ]
    assert exit_code(arguments) == 0
    for leak in ("c\nb\n", "\ufeffb\r\n", "index\twnid\tterms\n0\tc\tsee\n1\tb\tbee\n"):
        (tmp_path / "trained.txt").write_text(leak)
        assert exit_code(arguments) == 1
        assert "1 unseen classes were trained on: b" in " ".join(capsys.readouterr().err.split())
    for name in ("trained", "unseen"):
        (tmp_path / f"{name}.txt").write_text("\n")
        assert exit_code(arguments) == 1
        assert f"{name}.txt: no name here" in " ".join(capsys.readouterr().err.split())


# Lines in the form of data.noun; offsets and words are made up.
EXCERPT = """  1 This software and database is being provided to you
  2 under a licence
00000001 03 n 01 thing 0 001 ~ 00000002 n 0000 | that which is
00000002 05 n 02 big_bird 0 fowl 0 003 @ 00000001 n 0000 ~i 00000003 n 0000 + 00000009 v 0101 | a bird; "he ran"
00000003 18 n 0a A 0 B 0 C 0 D 0 E 0 F 0 G 0 H 0 I 0 J_K 0 001 @i 00000002 n 0000 | one of them
"""


def test_wordnets_own_files(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(EXCERPT)
    found = WordNet.read(str(tmp_path))
    assert found.terms["n00000002"] == ("big bird", "fowl")
    assert (len(found.terms["n00000003"]), found.terms["n00000003"][-1]) == (10, "J K")
    assert found.edges == (("n00000002", "n00000001", "hypernym"), ("n00000003", "n00000002", "instance"))
    assert found.glosses["n00000001"] == "that which is"
    out = tmp_path / "out"
    assert exit_code(["labels", "wordnet", str(tmp_path), "--out", str(out)]) == 0
    assert LabelSpace.read(str(out / "synsets.tsv")).terms["n00000002"] == ("big bird", "fowl")
    assert "n00000003" in Hierarchy.read(str(out / "is_a.tsv"))
    (tmp_path / "only.tsv").write_text("wnid\nn00000002\n")
    assert exit_code(["labels", "wordnet", str(tmp_path), "--out", str(out), "--only", str(tmp_path / "only.tsv")]) == 0
    assert LabelSpace.read(str(out / "synsets.tsv")).names == ("n00000001", "n00000002")
    with pytest.raises(LabelError, match="not in WordNet: n9"):
        found.above(["n9"])
    (tmp_path / "data.noun").write_text(EXCERPT.replace("001 @i 00000002", "001 @i 00000007"))
    with pytest.raises(LabelError, match="parent n00000007"):
        WordNet.read(str(tmp_path))
    (tmp_path / "data.noun").write_text(EXCERPT[:-40])
    with pytest.raises(LabelError, match="line 5"):
        WordNet.read(str(tmp_path / "data.noun"))
