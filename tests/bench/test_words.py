"""The words benchmark, whole, on a tiny text: both systems really train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psdevise.bench import judged, word_sizes, words
from psdevise.bench.table import Context, check
from psdevise.errors import BenchmarkFailed, ConfigError
from psdevise.evaluation.words import similarity
from psdevise.labels.vectors import WordVectors


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Some 12,000 words in 40 lines; w0 and w1 are the most frequent of 120."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(120) + 5)
    lines = [" ".join(f"w{i}" for i in rng.choice(120, 300, p=share / share.sum())) for _ in range(40)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for file in words.PAIRS.values():
        (folder / file).write_text("w0\tw1\t3\nw2\tw3\t1\nw4\tw5\t2\nw6\tw7\t2.5\n")
    monkeypatch.setenv("PSDEVISE_DATA", str(tmp_path))
    for name, value in {"SLICE_WORDS": 9000, "TRIAL_WORDS": 3000, "ROUNDS": 1, "SEEDS": 1}.items():
        monkeypatch.setattr(words, name, value)
    monkeypatch.setattr(words, "CASES", {"8d w2": (8, 2)})
    monkeypatch.setattr(words, "QUALITY", (8, 2))
    shipped = words.shipped
    monkeypatch.setattr(words, "shipped", lambda dim, window: replace(shipped(dim, window), slices=40, block_words=900))


def test_the_slice_has_so_many_words_in_short_lines(text: str, tmp_path: Path) -> None:
    prepared = words.prepare(text, 5000, str(tmp_path / "slice"), 0)
    lines = Path(prepared.lines).read_text().splitlines()
    assert sum(len(line.split()) for line in lines) == 5000
    assert " ".join(lines).split() == Path(text).read_text().split()[:5000]
    assert max(len(line.split()) for line in lines) <= words.LINE_WORDS
    assert prepared.words == prepared.vocabulary.total <= 5000


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "small")
def test_speed_and_quality_on_a_tiny_text(text: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    rows = words.run(Context(text=text, on_progress=lambda *p: seen.append(p)))
    rows += words._quality(
        words.prepare(text, None, str(tmp_path), 0), words.pair_sets(), (2,), lambda what: None, print
    )
    check(rows)
    found = {(row.case, row.system, row.metric): row for row in rows}
    case = "8d w2 W=2"
    assert found[case, "psdevise", "words_per_second"].value > 0
    assert found[case, "gensim", "words_per_second"].ratio == 1.0
    assert found[case, "psdevise", "words_per_second_ratio"].reference == "gensim"
    assert found[case, "psdevise", "bytes_per_word"].value > 0
    for system in ("gensim", "psdevise W=2"):
        assert -1 <= found["quality 8d w2", system, "men_spearman"].value <= 1
    assert [(done, of) for done, of, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "small")
def test_sizes_have_speed_and_quality_each(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_sizes, "SIZES", (4,))
    monkeypatch.setattr(word_sizes, "ON_A_SLICE", 16)
    rows = word_sizes.run(Context(text=text))
    assert [row.case.split("d ")[0] for row in rows if row.metric == "words_per_second"] == ["4", "16"]
    assert {row.metric for row in rows} == {"words_per_second", "wordsim353_spearman", "men_spearman"}


def test_a_spearman_that_cannot_be_computed_is_noted_and_no_row() -> None:
    rng = np.random.default_rng(0)
    known = [WordVectors(tuple("abcdef"), rng.standard_normal((6, 3)).astype(np.float32)) for _ in range(2)]
    lacking = [known[0], WordVectors(("a", "b"), np.eye(2, dtype=np.float32))]
    pairs = {"men": [("a", "b", 1.0), ("c", "d", 3.0), ("e", "f", 2.0)]}
    notes: list[str] = []
    rows = judged.rows({"gensim": lacking, "psdevise W=2": known}, pairs, "quality", notes.append)
    assert [(row.system, row.reference, row.ratio) for row in rows] == [("psdevise W=2", "", None)]
    assert rows[0].value == np.mean([similarity(v, pairs["men"]).value for v in known])
    assert notes == ["quality, gensim: men: no Spearman; both words of 1 of 3 pairs have vectors"]
    rows = judged.rows({"gensim": known, "psdevise W=2": known}, pairs, "quality", notes.append)
    assert [(row.system, row.reference, row.ratio) for row in rows] == [
        ("gensim", "gensim", 1.0),
        ("psdevise W=2", "gensim", 1.0),
    ]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--text FILE"):
        words.run(Context())
    monkeypatch.setenv("PSDEVISE_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"wordsim353\.tsv"):
        words.run(Context(full=True, text="text.txt"))


def test_a_peer_that_dies_or_counts_otherwise_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "_niceness", lambda: 0)
    prepared = words.prepare(text, 3000, str(tmp_path / "slice"), 0)
    with pytest.raises(BenchmarkFailed, match="gensim"):
        words._gensim(replace(prepared, lines=str(tmp_path / "nothing")), 8, 2, 1, "iterable", 0)
    Path(prepared.lines).write_text("a b c d e " * 10 + "\n")
    with pytest.raises(BenchmarkFailed, match="5 terms, psdevise counted"):
        words._gensim(prepared, 8, 2, 1, "iterable", 0)
