"""The ImageNet protocol: its figures against sets and sorting on random graphs, its tables, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.cli.main import exit_code
from psdevise.data import features
from psdevise.data.features import Features
from psdevise.errors import DataError, LabelError
from psdevise.evaluation.embedded import Embedded
from psdevise.evaluation.evaluate import EvaluationOptions
from psdevise.evaluation.imagenet import UNSEEN, Protocol, draw_split, results
from psdevise.labels.hops import Lists
from psdevise.labels.vectors import WordVectors

KS = (1, 2, 3, 5, 8)
OPTIONS = EvaluationOptions(hit_k=KS, hp_k=KS)


@st.composite
def dags(draw: st.DrawFn) -> Lists:
    """A node's first parent stands before it, so that all hang together; some have more; some are seen."""
    n = draw(st.integers(4, 16))
    pairs = {(i, draw(st.integers(0, i - 1))) for i in range(1, n)}
    pairs |= {
        (max(p), min(p)) for p in draw(st.lists(st.tuples(*2 * [st.integers(0, n - 1)]), max_size=8)) if len({*p}) == 2
    }
    nodes = [f"n{i:08d}" for i in range(n)]
    seen = draw(st.sets(st.sampled_from(nodes), min_size=1, max_size=n - 2))
    edges = tuple((nodes[c], nodes[p], "hypernym") for c, p in sorted(pairs))
    return Lists(tuple(sorted(seen)), tuple(nodes), edges)


def write(
    folder: str, vectors: WordVectors, values: np.ndarray, true: list[str], trained_on: tuple[str, ...]
) -> Embedded:
    labels: list[tuple[str, ...]] = [(label,) for label in true]
    features.write(f"{folder}/{UNSEEN}.parquet", [Features([*map(str, range(len(true)))], values, labels)], vectors.dim)
    Embedded(folder, "devise", "default", trained_on).write(vectors)
    return Embedded.open(folder)


@settings(max_examples=60, deadline=None)
@given(dags(), st.integers(0, 2**31), st.booleans(), st.integers(1, 3))
def test_figures_of_random_graphs_against_sets_and_sorting(lists: Lists, seed: int, shared: bool, terms: int) -> None:
    """hit@k and hp@k for five k, of all unseen classes, among themselves and among all; also where labels share
    vectors: every tie is lost; of several terms the best one counts."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(lists.every)), rng.integers(1, terms + 1, len(lists.every)))
    matrix = rng.standard_normal((len(owner), 6)).astype(np.float32)
    if shared:
        matrix = matrix[rng.integers(0, len(matrix), len(matrix))]
    true = [lists.unseen[i] for i in rng.integers(0, len(lists.unseen), 12)]
    values = rng.standard_normal((12, 6)).astype(np.float32)
    with TemporaryDirectory() as folder:
        system = write(folder, WordVectors(tuple(lists.every[i] for i in owner), matrix), values, true, lists.seen)
        rows = results([system], Protocol(lists, options=OPTIONS))
    near: dict[str, set[str]] = {n: set() for n in lists.every}
    for child, parent, _ in lists.edges:
        near[child].add(parent)
        near[parent].add(child)
    by_name = {name: matrix[owner == i].astype(np.float64) for i, name in enumerate(lists.every)}
    for candidates, names in (("unseen", lists.unseen), ("seen+unseen", lists.every)):
        for k in KS:
            hits, shares = [], []
            for value, label in zip(values, true, strict=True):
                correct = {label}
                while len(correct) < min(k, len(lists.every)):
                    correct |= {other for node in correct for other in near[node]}
                score = {n: float((by_name[n] * value).sum(axis=1).max()) for n in names}
                best = sorted(names, key=lambda n: (-score[n], n in correct))[:k]
                shares.append(len(correct.intersection(best)) / k)
                hits.append(sum(score[n] >= score[label] for n in names) <= k)
            found = {
                r.metric: r.value for r in rows if (r.split, r.candidates, r.k) == ("ImageNet 2011 21K", candidates, k)
            }
            assert found["hit"] == pytest.approx(np.mean(hits))
            assert found["hp"] == pytest.approx(np.mean(shares))


def chain(n: int) -> Lists:
    """A root with children, of which each has one child; the children but the last two are seen."""
    children = [f"c{i:02d}" for i in range(n)]
    edges = [(c, "root", "hypernym") for c in children] + [(f"{c}x", c, "hypernym") for c in children]
    return Lists(tuple(children[:-2]), ("root", *children, *(f"{c}x" for c in children)), tuple(edges))


def test_an_unseen_class_that_was_trained_on_is_refused(tmp_path: Path) -> None:
    lists = chain(5)
    vectors = WordVectors(lists.every, np.eye(len(lists.every), dtype=np.float32))
    values = np.zeros((1, vectors.dim), np.float32)
    system = write(str(tmp_path), vectors, values, ["c03"], (*lists.seen, "c03"))
    with pytest.raises(LabelError, match="1 unseen classes were trained on: c03"):
        results([system], Protocol(lists))
    system = write(str(tmp_path), vectors, values, ["elsewhere"], lists.seen)
    with pytest.raises(LabelError, match="1 pictures have no label of the lists: elsewhere"):
        results([system], Protocol(lists))
    system = write(str(tmp_path), vectors, values, [lists.seen[0]], lists.seen)
    with pytest.raises(LabelError, match="no picture for any of the tables"):
        results([system], Protocol(lists))
    (tmp_path / "system.json").unlink()
    with pytest.raises(DataError, match="half-written"):
        Embedded.open(str(tmp_path))


def test_a_split_is_drawn_with_its_seed() -> None:
    names = [f"n{i}" for i in range(1000)]
    split = draw_split(names, 200, 0)
    assert split == draw_split(names, 200, 0)
    assert (len(split.seen), len(split.unseen), len({*split.seen, *split.unseen})) == (800, 200, 1000)
    assert split.unseen != draw_split(names, 200, 1).unseen
    assert split.name == "800/200 drawn with seed 0"


def test_the_synthetic_protocol_makes_all_tables_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = chain(20)
    terms = [f"{w}\tterm {w.rstrip('x')}, synonym" for w in lists.every]  # a child shares its parent's first term
    for name, wnids in (("all", terms), ("seen", [t for t in terms if t.split("\t")[0] in lists.seen])):
        rows = [f"name {i}\t{line}" for i, line in enumerate(wnids)]  # names of one's own are no matter here
        (tmp_path / f"{name}.tsv").write_text("\n".join(["label\twnid\tterms", *rows]) + "\n")
    (tmp_path / "is_a.tsv").write_text("\n".join(["child\tparent\trelation", *map("\t".join, lists.edges)]) + "\n")
    paths = [
        f"--{option}={tmp_path}/{file}.tsv" for option, file in (("seen", "seen"), ("all", "all"), ("is-a", "is_a"))
    ]
    arguments = ["evaluate", "imagenet", "--synthetic", f"--out={tmp_path}/out", "--pictures=60", *paths]
    assert exit_code(arguments) == 0
    text = capsys.readouterr().out
    for line in ("Table 1", "Table 2", "Table 3", "Table 4", "| 2-hop | DeViSE-0 500-D | 19 |", "Softmax baseline"):
        assert line in text
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    where = {"split": "2-hop", "candidates": "unseen", "system": "devise", "variant": "500-D", "metric": "hit", "k": 1}
    (two_hop,) = [r for r in rows if all(r[k] == v for k, v in where.items())]
    # The parent of the seen ones and their children; a child's twin is seen, so that among all it is never sure.
    assert two_hop["chance"] == pytest.approx(1 / 19)
    assert two_hop["ceiling"] == 1.0
    (among_all,) = [r for r in rows if all(r[k] == v for k, v in (where | {"candidates": "seen+unseen"}).items())]
    assert among_all["ceiling"] == pytest.approx(1 / 19)
    made = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "systems").rglob("*.parquet")}
    assert exit_code(arguments) == 0
    assert made == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "systems").rglob("*.parquet")}
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == rows
    # Other terms are other vectors: with the first ones all different, nothing ties.
    (tmp_path / "all.tsv").write_text((tmp_path / "all.tsv").read_text().replace("x\tterm ", "x\tchild of "))
    assert exit_code(arguments) == 0
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    (among_all,) = [r for r in again if all(r[k] == v for k, v in (where | {"candidates": "seen+unseen"}).items())]
    assert among_all["ceiling"] == 1.0


def test_what_is_missing_on_the_command_line_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PSDEVISE_DATA", raising=False)
    assert exit_code(["evaluate", "imagenet", "--synthetic", "--out", str(tmp_path)]) == 2
    assert "give --seen, or set PSDEVISE_DATA" in capsys.readouterr().err
    monkeypatch.setenv("PSDEVISE_DATA", str(tmp_path))
    assert exit_code(["evaluate", "imagenet", "--out", str(tmp_path)]) == 2
    assert "give RUNS, or --synthetic" in capsys.readouterr().err
