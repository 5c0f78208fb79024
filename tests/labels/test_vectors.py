"""Word vectors on disk: every form is read as it was written, and what is broken is named."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from gensim.models import KeyedVectors

from psdevise.cli.vectors import open_vectors
from psdevise.errors import DataError
from psdevise.labels import vectors
from psdevise.labels.vectors import WordVectors


def test_terms_that_would_collide_in_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'ice_cream'"):
        WordVectors(("ice cream", "ice_cream"), np.ones((2, 2), np.float32)).save(str(tmp_path / "v.txt"))
    assert not (tmp_path / "v.txt").exists()


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
    (tmp_path / "marked.txt").write_text("\ufeff2 2\ncat 1 2\ndog 3 4.5\n")
    for name in ("g.txt", "marked.txt", "p.parquet"):
        found = vectors.load(str(tmp_path / name))
        assert found.terms == ("cat", "dog")
        np.testing.assert_array_equal(found.matrix, [[1, 2], [3, 4.5]])


def test_a_term_of_glove_may_hold_spaces_and_look_like_a_header(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("7 1 2\n. . . 3 4\nnew_york 5 6 \n\u00a0 7 8\n")
    found = vectors.load(str(tmp_path / "g.txt"))
    assert found.terms == ("7", ". . .", "new york", "\u00a0")
    np.testing.assert_array_equal(found.matrix, [[1, 2], [3, 4], [5, 6], [7, 8]])
    (tmp_path / "one.txt").write_text("cat 1\ndog 2\n")
    assert vectors.load(str(tmp_path / "one.txt")).dim == 1


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ([[1.0, 2.0], [3.0]], "different dimensions: .1, 2."),
        ([[1.0, 2.0], None], "no label or no vector"),
        (["a", "b"], "not lists of numbers"),
        ([["a"], ["b"]], "not numbers"),
        ([[1.0, 2.0], [3.0, None]], "'dog' is not finite"),
    ],
)
def test_broken_parquet_vectors_are_named(tmp_path: Path, column: list[object], problem: str) -> None:
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"label": ["cat", "dog"], "vector": column}), path)
    with pytest.raises(DataError, match=problem):
        vectors.load(str(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        vectors.load(str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3 2\ncat 1 2\ndog 3 4\n", "cut off: 2 of 3"),
        ("1 2\ncat 1 2\ndog 3 4\n", "the header says less"),
        ("2 3\ncat 1 2\ndog 3 4\n", "line 2 has 2 values, expected 3"),
        ("cat 1 2\ndog 3\n", "line 2 has 1 values"),
        ("cat 1 2\ndog 3 4 5\n", "line 2 has 3 values"),
        ("cat 1 2\ndog 3 x\n", "line 2"),
        ("cat 1 2\ncat 3 4\n", "'cat' stands here twice"),
        ("cat 1 nan\n", "'cat' is not finite"),
        ("", "no vectors"),
        ("cat\t1\t2\n", "line 1 is not a term and numbers parted by spaces"),
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
    with pytest.raises(DataError, match="cut off"):
        vectors.load(str(path))
    path.write_bytes(b"999999999999 500\nabc")
    with pytest.raises(DataError, match="too short for 999999999999"):
        vectors.load(str(path))
    path.write_bytes(b"a 1 2\nb 3 4\n")
    with pytest.raises(DataError, match="no word2vec header"):
        vectors.load(str(path))
    for name in ("v.zip", "v.parquet.gz"):
        with pytest.raises(DataError, match="decompress it"):
            vectors.load(str(tmp_path / name))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("form", ["v.bin", "v.txt", "v.glove.txt"])
def test_compressed_vectors_are_those_of_the_file(tmp_path: Path, form: str, suffix: str) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((100, 7)).astype(np.float32)
    before = WordVectors(tuple(f"pickup {i}" for i in range(100)), matrix)
    before.save(str(tmp_path / form))
    packed = COMPRESS[suffix]((tmp_path / form).read_bytes())
    path = tmp_path / f"{form}{suffix}"
    path.write_bytes(packed)
    found = vectors.load(str(path))
    assert found.terms == before.terms
    np.testing.assert_array_equal(found.matrix, before.matrix)
    for broken in (packed[:-4], packed[:-400], (tmp_path / form).read_bytes()):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="cut off"):
            vectors.load(str(path))


def test_a_compressed_files_header_makes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "v.bin.gz"
    path.write_bytes(gzip.compress(b"999999999999 500\na " + bytes(2000)))
    with pytest.raises(DataError, match="cut off: 1 of 999999999999"):
        vectors.load(str(path))
    path.write_bytes(gzip.compress(b"2 999999999999\na " + bytes(2000)))
    with pytest.raises(DataError, match="vectors of 999999999999 dimensions"):
        vectors.load(str(path))


def test_vectors_are_not_written_compressed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="compress the file afterwards"):
        WordVectors(("a",), np.ones((1, 2), np.float32)).save(str(tmp_path / "v.txt.gz"))


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    for read in (vectors.load, open_vectors):
        with pytest.raises(DataError, match=r"folder is no file of vectors\n.*run\.json"):
            read(str(tmp_path))


@pytest.mark.parametrize("header", ["2 3", "2 2", "1 4"])
def test_a_binary_file_of_another_size_than_its_header_says_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "v.bin"
    WordVectors(("a", "b"), np.arange(1, 9, dtype=np.float32).reshape(2, 4)).save(str(path))
    path.write_bytes(path.read_bytes().replace(b"2 4\n", f"{header}\n".encode(), 1))
    with pytest.raises(DataError, match="goes on after"):
        vectors.load(str(path))
