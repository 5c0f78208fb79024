from __future__ import annotations

import bz2
import gzip
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from psdevise.data import corpus, prepare_text, text, tokenizer, vocabulary
from psdevise.data.vocabulary import Merger, Vocabulary, VocabularyOptions
from psdevise.errors import ConfigError, DataError

LINES = ["The pickup truck, a Truck!", "A truck; two pickup trucks.", "", "Zoë's café — naïve"]
ONE = VocabularyOptions(min_count=1, processes=1)


def test_words_are_lower_case_unicode() -> None:
    assert tokenizer.words("Zoë's CAFÉ—naïve_x 42nd") == ["zoë's", "café", "naïve", "x", "42nd"]
    assert tokenizer.load(tokenizer.DEFAULT) is tokenizer.words


@pytest.mark.parametrize(
    "name", ["nonsense", "no.such:words", "psdevise.data.tokenizer:nothing", "psdevise.config:yaml"]
)
def test_a_tokeniser_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        tokenizer.load(name)


@pytest.mark.parametrize("suffix", [".txt", ".gz", ".bz2", ".xz", ".zst"])
def test_every_compression_gives_the_same_lines(tmp_path: Path, suffix: str) -> None:
    data = "\n".join(LINES).encode()
    compress = {
        ".txt": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }[suffix]
    path = tmp_path / f"text{suffix}"
    path.write_bytes(compress(data))
    assert list(text.lines(str(path))) == [line for line in LINES if line]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_truncated_file_is_an_error_not_a_short_text(tmp_path: Path, suffix: str) -> None:
    data = ("some words that do not repeat " * 50 + str(np.random.default_rng(0).random(5000).tolist())).encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"text{suffix}"
    path.write_bytes(compress(data)[:-400])
    with pytest.raises(DataError, match="cut off"):
        list(text.lines(str(path)))


def test_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good \xff\xfe words")
    assert tokenizer.words(next(text.lines(str(path)))) == ["good", "words"]


def test_a_tables_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": LINES}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("id,body\n1,one line\n2,another\n")
    (tmp_path / "t.jsonl").write_text('{"body": "one line"}\n{"body": "another"}\n')
    assert list(text.lines(str(tmp_path / "t.parquet"), "body")) == [line for line in LINES if line]
    for name in ("t.csv", "t.jsonl"):
        assert list(text.lines(str(tmp_path / name), "body")) == ["one line", "another"]
    with pytest.raises(DataError, match="columns here: id, body"):
        list(text.lines(str(tmp_path / "t.csv"), "text"))


def test_a_wikipedia_dump_through_gensim(tmp_path: Path) -> None:
    body = "The '''pickup''' [[truck]] is old."
    page = f"<page><title>T</title><ns>0</ns><id>1</id><revision><text>{body}</text></revision></page>"
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{page}</mediawiki>'
    path = tmp_path / "wiki-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(xml.encode()))
    assert [tokenizer.words(line) for line in text.lines(str(path))] == [["the", "pickup", "truck", "is", "old"]]


@given(
    st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.lists(st.sampled_from("abcd"), min_size=2, max_size=3))
)
def test_merging_is_longest_first_and_loses_no_word(words: list[str], terms: list[list[str]]) -> None:
    merged = Merger(terms)(words)
    assert " ".join(merged) == " ".join(words)

    def plainly(rest: list[str]) -> list[str]:
        if not rest:
            return []
        for n in (3, 2):
            if len(rest) >= n and rest[:n] in terms:
                return [" ".join(rest[:n]), *plainly(rest[n:])]
        return [rest[0], *plainly(rest[1:])]

    assert merged == plainly(words)


def test_merged_terms_are_counted_as_one_and_kept_however_rare(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("\n".join([*LINES, "truck truck truck"]))
    options = VocabularyOptions(min_count=3, processes=1)
    found = vocabulary.count(str(path), options, keep=["Pickup Truck", "zeppelin"])
    # "pickup" occurs once more, alone, before "trucks", which is another word.
    assert dict(zip(found.terms, found.counts.tolist(), strict=True)) == {"truck": 5, "pickup truck": 1}
    np.testing.assert_array_equal(found.encode(["the", "pickup", "truck", "truck"]), [1, 0])
    assert found.term_of("PICKUP truck") == "pickup truck"


def test_counting_in_processes_equals_counting_plainly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{i}" for i in rng.zipf(1.5, 40) % 50) for _ in range(300)]
    path = tmp_path / "t.txt"
    path.write_text("\n".join(lines))
    expected = Counter(w for line in lines for w in line.split())
    found = vocabulary.count(str(path), VocabularyOptions(min_count=5, processes=2))
    assert dict(zip(found.terms, found.counts.tolist(), strict=True)) == {w: n for w, n in expected.items() if n >= 5}
    assert found.counts.tolist() == sorted(found.counts.tolist(), reverse=True)


def test_vocabulary_file_round_trip(tmp_path: Path) -> None:
    before = Vocabulary(("b", "a b"), np.array([3, 1]), (("a", "b"),), tokenizer.DEFAULT)
    before.save(str(tmp_path / "v.parquet"))
    after = Vocabulary.load(str(tmp_path / "v.parquet"))
    assert (after.terms, after.merges, after.tokenizer) == (before.terms, before.merges, before.tokenizer)
    np.testing.assert_array_equal(after.counts, before.counts)


def test_prepared_text_holds_every_known_word_in_sentences(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [" ".join(f"w{i}" for i in rng.integers(0, 30, rng.integers(2, 60))) for _ in range(200)]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    options = VocabularyOptions(min_count=1, max_line_words=20, processes=1)
    out = str(tmp_path / "out")
    manifest = prepare_text.prepare(str(tmp_path / "t.txt"), out, options, [], None, 3)
    found = Vocabulary.load(f"{out}/vocabulary.parquet")
    table = corpus.Corpus(f"{out}/corpus.parquet")
    sentences = table.read(0, table.rows)
    assert max(map(len, sentences)) <= 20
    # A line whose last piece is a single word loses it: one word has no neighbour to train on.
    expected = Counter(
        w
        for line in lines
        for i in range(0, len(line.split()), 20)
        if len(p := line.split()[i : i + 20]) > 1
        for w in p
    )
    assert Counter(found.terms[i] for s in sentences for i in s) == expected
    assert manifest["words"] == sum(expected.values())
    middle = table.read(7, 19)
    assert all((a == b).all() for a, b in zip(middle, sentences[7:19], strict=True))
    assert prepare_text.prepare(str(tmp_path / "t.txt"), out, options, [], None, 3) == manifest


def test_a_truncated_corpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    corpus.write(str(path), [[np.array([1, 2, 3], np.int32)] * 500])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a corpus"):
        corpus.Corpus(str(path))
