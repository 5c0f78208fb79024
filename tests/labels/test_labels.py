from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise import scores
from psdevise.errors import DataError, LabelError
from psdevise.labels import vectors
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.resolve import ResolveOptions, resolve, summary
from psdevise.labels.space import LabelSpace, read_tsv
from psdevise.labels.split import Split, read_names, read_split
from psdevise.labels.vectors import WordVectors


@st.composite
def dags(draw: st.DrawFn) -> list[tuple[str, str]]:
    n = draw(st.integers(2, 14))
    edges = [(str(i), str(draw(st.integers(0, i - 1)))) for i in range(1, n)]
    more = draw(st.lists(st.tuples(st.integers(1, n - 1), st.integers(0, n - 1)), max_size=6))
    return edges + [(str(a), str(b)) for a, b in more if b < a]


@settings(max_examples=80)
@given(dags(), st.integers(1, 6), st.data())
def test_correct_lists_against_a_plain_reference(edges: list[tuple[str, str]], k: int, data: st.DataObject) -> None:
    nodes = sorted({n for e in edges for n in e})
    valid = data.draw(st.lists(st.sampled_from(nodes), min_size=1, unique=True))
    # All distances by Floyd and Warshall over undirected edges.
    far = {(a, b): 0 if a == b else 99 for a in nodes for b in nodes}
    for a, b in edges:
        far[a, b] = far[b, a] = min(1, far[a, b])
    for m in nodes:
        for a in nodes:
            for b in nodes:
                far[a, b] = min(far[a, b], far[a, m] + far[m, b])
    found = Hierarchy(edges).correct_lists(nodes, valid, k)
    for node, indices in zip(nodes, found, strict=True):
        radius = next((r for r in range(100) if sum(far[node, v] <= r for v in valid) >= k), 98)
        assert {valid[i] for i in indices} == {v for v in valid if far[node, v] <= radius}


def test_a_cycle_is_refused_and_several_parents_are_not() -> None:
    Hierarchy([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    with pytest.raises(LabelError, match="cycle"):
        Hierarchy([("a", "b"), ("b", "c"), ("c", "a"), ("x", "a")])


def test_chance_of_hp_on_cifar100_is_the_published_one(shared_data: Path) -> None:
    """PROTOCOLS: chance at k = 1/2/5/10/20 over all 100 labels and over the 80 seen ones."""
    folder = shared_data / "cifar100"
    wnids = {r["label"]: r["wnid"] for r in read_tsv(str(folder / "wordnet.tsv"), ("label", "wnid"))}
    split = read_split(sorted(wnids), str(folder / "unseen_20.txt"))
    hierarchy = Hierarchy.read(str(folder / "is_a.tsv"))
    expected = {
        100: (0.0100, 0.0310, 0.0667, 0.1475, 0.2496),
        80: (0.0125, 0.0353, 0.0848, 0.1702, 0.2987),
    }
    for names in (sorted(wnids), split.seen):
        nodes = [wnids[n] for n in names]
        for k, value in zip((1, 2, 5, 10, 20), expected[len(names)], strict=True):
            lists = hierarchy.correct_lists(nodes, nodes, k)
            chance = scores.hp_chance(lists, np.arange(len(nodes)), k, len(nodes))
            assert chance == pytest.approx(value, abs=5e-5)


SPACE = LabelSpace(
    ("pickup truck", "tench", "maillot", "red wolf", "zyx"),
    {
        "pickup truck": ("pickup truck",),
        "tench": ("tench label", "tinca"),
        "maillot": ("maillot", "tank suit", "swimsuit"),
        "red wolf": ("red wolf",),
        "zyx": ("zyx",),
    },
    {"red wolf": "n1", "zyx": "n2", "tench": "n9"},
)
TERMS = ("pickup truck", "tinca", "swimsuit", "wolf", "red", "zyxt", "truck")
VECTORS = WordVectors(TERMS, np.eye(7, dtype=np.float32), np.array([9, 8, 7, 6, 5, 4, 3]))
GRAPH = Hierarchy([("n1", "p"), ("n2", "p"), ("n9", "q"), ("p", "r"), ("q", "r")])


def test_the_doctor_says_how_every_label_got_its_vector() -> None:
    matrix, rows = resolve(SPACE, VECTORS, ResolveOptions(fallback="neighbours"), GRAPH)
    assert [(r.label, r.how, r.term, r.count) for r in rows] == [
        ("pickup truck", "exact phrase", "pickup truck", 9),
        ("tench", "first term", "tinca", 8),
        ("maillot", "synonym", "swimsuit", 7),
        ("red wolf", "mean of words", "red + wolf", 5),
        ("zyx", "graph neighbours", "red wolf", 0),
    ]
    assert summary(rows)["synonym"] == 1
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 0.5, 0.5, 0, 0])
    np.testing.assert_array_equal(matrix[4], matrix[3])
    assert (np.linalg.norm(matrix, axis=1) > 0).all()


def test_a_label_without_a_vector_stops_the_run_with_its_nearest_candidates() -> None:
    with pytest.raises(LabelError, match=r"'zyx' .near: zyxt"):
        resolve(SPACE, VECTORS, ResolveOptions(fallback="words"), GRAPH)
    with pytest.raises(LabelError, match=r"2 labels have no vector.*'red wolf'"):
        resolve(SPACE, VECTORS, ResolveOptions(fallback="stop"), GRAPH)


def test_rare_terms_may_be_mistrusted() -> None:
    space = LabelSpace.of(["red"])
    resolve(space, VECTORS, ResolveOptions(fallback="stop", min_count=5))
    with pytest.raises(LabelError):
        resolve(space, VECTORS, ResolveOptions(fallback="stop", min_count=6))


@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_saved_vectors_open_in_gensim_and_here(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    before = WordVectors(("pickup truck", "zoë", "a"), rng.standard_normal((3, 5)).astype(np.float32))
    path = str(tmp_path / f"v{suffix}")
    before.save(path)
    theirs = KeyedVectors.load_word2vec_format(path, binary=suffix == ".bin")
    assert theirs.index_to_key == ["pickup_truck", "zoë", "a"]
    np.testing.assert_array_equal(theirs.vectors, before.matrix)
    ours = vectors.load(path)
    assert ours.terms == before.terms
    np.testing.assert_array_equal(ours.matrix, before.matrix)


def test_glove_text_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("cat 1 2\ndog 3 4.5\n")
    pq.write_table(pa.table({"label": ["cat", "dog"], "vector": [[1.0, 2.0], [3.0, 4.5]]}), tmp_path / "p.parquet")
    for name in ("g.txt", "p.parquet"):
        found = vectors.load(str(tmp_path / name))
        assert found.terms == ("cat", "dog")
        np.testing.assert_array_equal(found.matrix, [[1, 2], [3, 4.5]])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3 2\ncat 1 2\ndog 3 4\n", "cut off: 2 of 3"),
        ("cat 1 2\ndog 3\n", "line 2 has 1 values"),
        ("cat 1 2\ndog 3 x\n", "line 2"),
        ("cat 1 2\ncat 3 4\n", "'cat' stands here twice"),
        ("cat 1 nan\n", "'cat' is not finite"),
        ("", "no vectors"),
    ],
)
def test_broken_vector_files_are_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(DataError, match=problem):
        vectors.load(str(tmp_path / "v.txt"))


def test_a_truncated_binary_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.bin"
    WordVectors(("a", "b"), np.ones((2, 4), np.float32)).save(str(path))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="1 of 2 vectors are whole"):
        vectors.load(str(path))


def test_splits_and_their_leaks(tmp_path: Path) -> None:
    path = tmp_path / "unseen.txt"
    path.write_text("# comment\nb\n\n")
    split = read_split(["a", "b", "c"], str(path))
    assert (split.name, split.seen, split.unseen) == ("unseen", ("a", "c"), ("b",))
    with pytest.raises(LabelError, match="trained on: b"):
        split.check_unseen(["a", "b"])
    assert read_split(["a", "b"], None) == Split("all_seen", ("a", "b"), ())
    for text, problem in (("b\nb\n", "repeated: b"), ("x\n", "'x'"), ("a\nb\n", "fewer than two")):
        path.write_text(text)
        with pytest.raises(LabelError, match=problem):
            read_split(["a", "b", "c"], str(path))
    path.write_text("d\n")
    with pytest.raises(LabelError, match="'d'"):
        read_names(str(path), ["a"])


def test_label_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("label\twnid\tterms\ncat\tn1\ttrue cat, puss\ndog\t\t\n")
    space = LabelSpace.of(["cat", "dog"], str(path))
    assert space.terms == {"cat": ("cat", "true cat", "puss"), "dog": ("dog",)}
    assert space.wnids == {"cat": "n1"}
    with pytest.raises(LabelError, match="not listed: cow"):
        LabelSpace.of(["cow"], str(path))
    path.write_text("label\ncat\ncat\n")
    with pytest.raises(LabelError, match="twice"):
        LabelSpace.of(["cat"], str(path))
    path.write_text("name\ncat\n")
    with pytest.raises(LabelError, match="no column 'label'"):
        LabelSpace.of(["cat"], str(path))
