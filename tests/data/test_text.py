from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psdevise.data import corpus, counting, prepare_text, text, tokenizer
from psdevise.data.text import Text
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


def test_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good \xff\xfe words")
    assert tokenizer.words(next(text.lines(str(path)))) == ["good", "words"]


@pytest.mark.parametrize("data", ["a text\nof two lines".encode("utf-16"), b"\x1f\x8b\x08\x00\x00"])
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "text.txt").write_bytes(data)
    with pytest.raises(DataError, match="not UTF-8"):
        list(text.lines(str(tmp_path / "text.txt")))


def test_lines_of_a_word_each_are_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("word\nother\n" * 5)
    for _ in range(2):  # the second time its words are counted already
        with pytest.raises(DataError, match="no line holds two words"):
            prepare_text.prepare(str(tmp_path / "text.txt"), str(tmp_path / "out"), ONE, [], None, 0)


@pytest.mark.parametrize("data", [b"", b"\n \n", b"?!\n..."])
@pytest.mark.parametrize("phrases", [False, True])
def test_a_text_without_a_word_is_said_to_be_empty(tmp_path: Path, data: bytes, phrases: bool) -> None:
    (tmp_path / "text.txt").write_bytes(data)
    with pytest.raises(DataError, match="empty"):
        counting.count(Text(str(tmp_path / "text.txt")), VocabularyOptions(phrases=phrases, processes=1))


def test_rare_words_and_a_nameless_column_are_told_with_both_ways_to_mend_them(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c\n")
    with pytest.raises(DataError, match=r"no word occurs 5 times\n.*vocabulary\.min_count, or --min-count"):
        counting.count(Text(str(tmp_path / "text.txt")), VocabularyOptions(processes=1))
    (tmp_path / "t.csv").write_text("body\nwords\n")
    with pytest.raises(DataError, match=r"data\.text_column, or --column"):
        list(text.lines(str(tmp_path / "t.csv")))


def test_a_tables_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": LINES}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("id,body\n1,one line\n2,another\n")
    (tmp_path / "t.jsonl").write_text('{"body": "one line"}\n{"body": "another"}\n')
    assert list(text.lines(str(tmp_path / "t.parquet"), "body")) == [line for line in LINES if line]
    for name in ("t.csv", "t.jsonl"):
        assert list(text.lines(str(tmp_path / name), "body")) == ["one line", "another"]
    with pytest.raises(DataError, match="columns here: id, body"):
        list(text.lines(str(tmp_path / "t.csv"), "text"))


def test_a_column_of_categories_is_text_if_they_are(tmp_path: Path) -> None:
    words = pa.array(["one line", None, "another", "one line"]).dictionary_encode()
    numbers = pa.array([7, 8, 9, 7]).dictionary_encode()
    pq.write_table(pa.table({"body": words, "number": numbers}), tmp_path / "t.parquet")
    assert list(text.lines(str(tmp_path / "t.parquet"), "body")) == ["one line", "another", "one line"]
    with pytest.raises(DataError, match="holds int64, not text"):
        list(text.lines(str(tmp_path / "t.parquet"), "number"))


@pytest.mark.parametrize("longest", [1, 2, 5, 7, 20, 1000])
def test_a_text_that_is_one_line_is_read_in_parts_that_cut_no_word(
    tmp_path: Path, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "LONGEST_LINE", longest)
    path = tmp_path / "text8"
    path.write_text(" one two  three\nfour five six \n\nseven")
    found = list(text.lines(str(path)))
    assert all(found)
    if longest < 7:  # a word longer than that is cut
        assert "".join(found).replace(" ", "") == "onetwothreefourfivesixseven"
    else:
        assert " ".join(found).split() == ["one", "two", "three", "four", "five", "six", "seven"]
    assert max(map(len, found)) <= 2 * longest


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
    found = counting.count(Text(str(path)), options, keep=["Pickup Truck", "zeppelin"])
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
    found = counting.count(Text(str(path)), VocabularyOptions(min_count=5, processes=2))
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
    table = corpus.Corpus(f"{out}/corpus")
    sentences = list(table.read(0, table.rows))
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
    middle = list(table.read(7, 19))
    assert all((a == b).all() for a, b in zip(middle, sentences[7:19], strict=True))
    assert prepare_text.prepare(str(tmp_path / "t.txt"), out, options, [], None, 3) == manifest


def test_parts_of_a_corpus_read_as_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sentences = [rng.integers(0, 99, rng.integers(2, 9)).astype(np.int32) for _ in range(1000)]
    batches = [sentences[i : i + 70] for i in range(0, 1000, 70)]
    folder = str(tmp_path / "corpus")
    corpus.write(folder, [[np.zeros(3, np.int32)]], 10**6)  # what stood there before is gone
    assert corpus.write(folder, batches, words_per_part=1500) == (1000, sum(map(len, sentences)))
    assert len(list((tmp_path / "corpus").iterdir())) > 2
    table = corpus.Corpus(folder)
    assert table.rows == 1000
    for start, stop in [(0, 1000), (0, 1), (999, 1000), (130, 777), (200, 400), (5, 5)]:
        found = list(table.read(start, stop))
        assert len(found) == stop - start
        assert all((a == b).all() for a, b in zip(found, sentences[start:stop], strict=True))


def test_a_truncated_or_missing_corpus_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    corpus.write(str(folder), [[np.array([1, 2, 3], np.int32)] * 500])
    part = folder / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match="part-00000"):
        corpus.Corpus(str(folder))
    with pytest.raises(DataError, match="no corpus here"):
        corpus.Corpus(str(tmp_path / "nothing"))


def phrase_lines() -> list[str]:
    """ "new york" and "ice cream" stand together always; the other words by chance."""
    rng = np.random.default_rng(4)
    words = [f"w{i}" for i in range(40)]
    lines = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    return [f"{line} new york {line} ice cream" if i % 2 else line for i, line in enumerate(lines)]


@pytest.mark.parametrize("max_terms", [None, 30])
def test_phrases_are_found_and_lose_no_word(tmp_path: Path, max_terms: int | None) -> None:
    lines = phrase_lines()
    (tmp_path / "t.txt").write_text("\n".join(lines))
    options = VocabularyOptions(min_count=1, phrases=True, max_terms=max_terms, processes=1)
    found = counting.count(Text(str(tmp_path / "t.txt")), options, keep=["cream"])
    counts = dict(zip(found.terms, found.counts.tolist(), strict=True))
    assert counts["new york"] == counts["ice cream"] == 150
    assert set(found.merges) <= {tuple(term.split()) for term in found.terms}
    encoded = np.concatenate([found.encode(line.split()) for line in lines])
    np.testing.assert_array_equal(np.bincount(encoded, minlength=found.size), found.counts)
    if max_terms is None:
        assert sum(len(t.split()) * n for t, n in counts.items()) == sum(len(line.split()) for line in lines)
    else:
        assert found.size == 30


def test_a_phrase_never_swallows_a_label(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(["red pickup truck driver sings", "pickup truck driver"] * 200))
    options = VocabularyOptions(min_count=1, phrases=True, processes=1)
    found = counting.count(Text(str(tmp_path / "t.txt")), options, keep=["pickup truck"])
    assert found.counts[found.index["pickup truck"]] == 400


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=3),
    st.integers(2, 9),
    st.sets(st.sampled_from("abcdefgh")),
    st.integers(1, 9),
)
def test_the_cap_keeps_labels_and_then_the_most_frequent(
    counts: dict[str, int], cap: int, labels: set[str], min_count: int
) -> None:
    options = VocabularyOptions(min_count=min_count, max_terms=cap)
    found = counting._most_frequent(Counter(counts), options, {(label,) for label in labels})
    terms = [t for t, _ in found]
    assert labels & set(counts) <= set(terms)
    assert [n for _, n in found] == sorted((n for _, n in found), reverse=True)
    assert len(terms) <= max(cap, len(labels & set(counts)))
    left_out = {t for t, n in counts.items() if n >= min_count} - set(terms)
    rest = [counts[t] for t in terms if t not in labels]
    assert not left_out or not rest or max(counts[t] for t in left_out) <= min(rest)
    assert not left_out or len(terms) >= cap


def test_progress_counts_the_words_of_all_passes(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a b c d e\n" * 500)
    seen: list[tuple[int, int]] = []
    options = VocabularyOptions(min_count=1, processes=1)
    prepare_text.prepare(str(tmp_path / "t.txt"), str(tmp_path / "o"), options, [], None, 0, lambda *p: seen.append(p))
    assert seen[-1] == (5000, 5000)
    assert all(done <= of for done, of in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
