from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gensim.models import KeyedVectors

from psdevise.cli.data import data
from psdevise.cli.evaluate import evaluate
from psdevise.errors import DataError, LabelError
from psdevise.evaluation import words
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors, load


@pytest.fixture
def vectors() -> WordVectors:
    terms = tuple(f"w{i}" for i in range(60))
    matrix = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    return WordVectors(terms, matrix, np.arange(60, 0, -1))


@pytest.fixture
def gensims(vectors: WordVectors) -> KeyedVectors:
    keyed = KeyedVectors(8)
    keyed.add_vectors(list(vectors.terms), vectors.matrix)
    return keyed


def test_similarity_is_gensims_with_ties_and_missing_words(
    tmp_path: Path, vectors: WordVectors, gensims: KeyedVectors
) -> None:
    rng = np.random.default_rng(1)
    rows = [f"W{a}\tw{b}\t{s}" for a, b, s in zip(*rng.integers(0, 70, (2, 200)), rng.integers(0, 6, 200), strict=True)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["# a comment", *rows, ""]))
    found = words.similarity(vectors, words.read_pairs(str(tmp_path / "pairs.tsv")))
    _, theirs, missing = gensims.evaluate_word_pairs(str(tmp_path / "pairs.tsv"))
    assert found.value == pytest.approx(theirs.statistic, abs=1e-6)
    assert found.total == 200
    assert found.covered == 200 - round(missing * 2)


def test_drift_is_what_gensim_s_neighbours_say(vectors: WordVectors, gensims: KeyedVectors) -> None:
    noise = np.random.default_rng(4).standard_normal(vectors.matrix.shape).astype(np.float32)
    after = WordVectors(vectors.terms, vectors.matrix + 0.5 * noise)
    moved = KeyedVectors(8)
    moved.add_vectors(list(after.terms), after.matrix)
    terms = ["w3", "w0", "w59"]
    kept, cosines = [], []
    for term in terms:
        near = [{name for name, _ in keyed.most_similar(term, topn=10)} for keyed in (gensims, moved)]
        kept.append(len(near[0] & near[1]) / 10)
        a, b = vectors.vector(term), after.vector(term)
        cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert 0 < np.mean(kept) < 1
    found = words.drift(vectors, after, terms)
    assert found.neighbours_kept == pytest.approx(np.mean(kept))
    assert found.cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    same = words.drift(vectors, vectors, terms)
    assert (same.neighbours_kept, same.cosine) == (1.0, pytest.approx(1.0))


def test_analogies_are_gensims(tmp_path: Path, vectors: WordVectors, gensims: KeyedVectors) -> None:
    rng = np.random.default_rng(2)
    m = vectors.matrix
    lines = []
    for section in ("one", "two"):
        lines.append(f": {section}")
        for _ in range(40):
            a, b, c = rng.choice(60, 3, replace=False)
            unit = m / np.linalg.norm(m, axis=1, keepdims=True)
            score = unit @ (unit[b] - unit[a] + unit[c])
            score[[a, b, c]] = -9
            d = score.argmax() if rng.random() < 0.5 else rng.integers(60)  # half of them can be answered
            lines.append(f"W{a} w{b} w{c} w{d}")
    lines.append("w1 w2 nowhere w3")
    (tmp_path / "q.txt").write_text("\n".join(lines))
    sections = words.read_analogies(str(tmp_path / "q.txt"))
    seen: list[tuple[int, int]] = []
    found = words.analogies(vectors, sections, 30_000, lambda *p: seen.append(p))
    _, theirs = gensims.evaluate_word_analogies(str(tmp_path / "q.txt"))
    for row, section in zip(found, theirs, strict=False):
        assert (row.section, row.right) == (section["section"], len(section["correct"]))
        assert row.covered == len(section["correct"]) + len(section["incorrect"])
    assert [row.total for row in found] == [40, 41]
    assert sum(row.right for row in found) >= 30
    assert seen[-1][1] == 81
    few = words.analogies(vectors, sections, 10)
    assert sum(row.covered for row in few) < 5


@pytest.mark.parametrize(
    ("text", "problem"), [("a b", "line 1"), ("a\tb\tc", "line 1"), ("# only\n", "no pairs"), ("a,b,1\nc", "line 2")]
)
def test_broken_pairs_are_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(DataError, match=problem):
        words.read_pairs(str(tmp_path / "p.txt"))


@pytest.mark.parametrize(("text", "problem"), [(": a\nb c d", "line 2"), (": a\n", "no questions")])
def test_broken_questions_are_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "q.txt").write_text(text)
    with pytest.raises(DataError, match=problem):
        words.read_analogies(str(tmp_path / "q.txt"))


def test_too_few_pairs_have_no_correlation(vectors: WordVectors) -> None:
    assert words.similarity(vectors, [("w1", "w2", 1.0), ("w1", "x", 2.0)]) == words.Similarity(None, 1, 2)
    alike = [("w1", "w2", 2.0), ("w3", "w4", 2.0), ("w5", "w6", 2.0)]
    assert words.similarity(vectors, alike) == words.Similarity(None, 3, 3)


def test_coverage_of_a_label_table(tmp_path: Path, vectors: WordVectors) -> None:
    (tmp_path / "l.tsv").write_text("wnid\tterms\nn1\tw3, other\nn2\tnone, W5\nn3\tnever\n")
    rows = words.coverage(vectors, LabelSpace.read(str(tmp_path / "l.tsv")))
    assert rows == [
        words.Coverage("n1", "w3", True, True, 57),
        words.Coverage("n2", "w5", True, False, 55),
        words.Coverage("n3", "never", False, False, 0),
    ]


def test_the_command_on_a_file(tmp_path: Path, vectors: WordVectors) -> None:
    vectors.save(str(tmp_path / "v.bin"))
    (tmp_path / "pairs.csv").write_text("w1,w2,3\nw3,w4,5\nw5,w6,1\nw7,zzz,1\n")
    (tmp_path / "labels.txt").write_text("W9\nnothing\n")
    (tmp_path / "q.txt").write_text(": s\nw1 w2 w3 w4\n")
    arguments = ["words", str(tmp_path / "v.bin"), "--men", str(tmp_path / "pairs.csv")]
    arguments += ["--labels", str(tmp_path / "labels.txt"), "--analogies", str(tmp_path / "q.txt")]
    arguments += ["--neighbors", "w1", "w2", "nothing", "-k", "3"]
    found = json.loads(CliRunner().invoke(evaluate, [*arguments, "--json"], catch_exceptions=False).output)
    assert found["similarity"]["MEN"]["covered"] == 3
    assert found["similarity"]["MEN"]["total"] == 4
    assert list(found["neighbors"]) == ["w1", "w2", "nothing"]
    assert found["neighbors"]["nothing"] is None
    assert [name for name, _ in found["neighbors"]["w2"]] == [
        name for name, _ in vectors.neighbours(vectors.vector("w2"), 4)[1:]
    ]
    assert [row["found"] for row in found["coverage"][str(tmp_path / "labels.txt")]] == [True, False]
    shown = CliRunner().invoke(evaluate, arguments, catch_exceptions=False).output
    assert "3 of 4" in shown
    assert "1 of 2 labels have a vector (50.0%)" in shown
    assert "nothing  no vector" in shown
    wrong = CliRunner().invoke(evaluate, ["words", str(tmp_path / "v.bin"), "w1"])
    assert wrong.exit_code == 2
    assert "--neighbors" in wrong.output


@pytest.mark.parametrize("name", ["v.bin", "v.txt", "v.glove.txt", "v.parquet"])
def test_vectors_go_from_any_form_to_any_other(tmp_path: Path, vectors: WordVectors, name: str) -> None:
    first, then = tmp_path / name, tmp_path / "again.bin"
    WordVectors(("two words", *vectors.terms[1:]), vectors.matrix).save(str(first))
    for source, out in [(first, then), (then, tmp_path / f"back-{name}")]:
        CliRunner().invoke(data, ["vectors", str(source), str(out)], catch_exceptions=False)
    found = load(str(tmp_path / f"back-{name}"))
    assert found.terms == ("two words", *vectors.terms[1:])
    np.testing.assert_array_equal(found.matrix, vectors.matrix)


def test_glove_text_has_no_header_and_opens_in_gensim(tmp_path: Path, vectors: WordVectors) -> None:
    vectors.save(str(tmp_path / "v.glove.txt"))
    found = KeyedVectors.load_word2vec_format(str(tmp_path / "v.glove.txt"), no_header=True)
    np.testing.assert_array_equal(found.vectors, vectors.matrix)


def test_foreign_vectors_may_know_capitals(tmp_path: Path) -> None:
    terms = ("german shepherd", "German shepherd", "Paris", "tiger")
    WordVectors(terms, np.eye(4, dtype=np.float32)).save(str(tmp_path / "v.bin"))
    (tmp_path / "l.txt").write_text("German shepherd\nParis\nTiger\n")
    arguments = [str(tmp_path / "v.bin"), str(tmp_path / "l.parquet"), "--labels", str(tmp_path / "l.txt")]
    CliRunner().invoke(data, ["vectors", *arguments, "--fallback", "stop"], catch_exceptions=False)
    np.testing.assert_array_equal(load(str(tmp_path / "l.parquet")).matrix, np.eye(4)[1:])
    asked = ["words", str(tmp_path / "v.bin"), "--labels", str(tmp_path / "l.txt"), "--neighbors", "Paris", "--json"]
    found = json.loads(CliRunner().invoke(evaluate, asked, catch_exceptions=False).output)
    assert len(found["neighbors"]["Paris"]) == 3
    assert all(row["first"] for row in found["coverage"][str(tmp_path / "l.txt")])


def test_foreign_vectors_under_the_names_of_labels(tmp_path: Path, vectors: WordVectors) -> None:
    vectors.save(str(tmp_path / "v.txt"))
    (tmp_path / "l.tsv").write_text("label\tterms\nfirst\tw3\nboth\tw4 w5\n")
    arguments = ["vectors", str(tmp_path / "v.txt"), str(tmp_path / "l.parquet"), "--labels", str(tmp_path / "l.tsv")]
    assert "1 first term, 1 mean of words" in CliRunner().invoke(data, arguments, catch_exceptions=False).output
    found = load(str(tmp_path / "l.parquet"))
    assert found.terms == ("first", "both")
    np.testing.assert_array_equal(found.matrix[0], vectors.matrix[3])
    with pytest.raises(LabelError, match="both"):
        CliRunner().invoke(data, [*arguments, "--fallback", "stop"], catch_exceptions=False)
