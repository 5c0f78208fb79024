from __future__ import annotations

import numpy as np
import pytest
from gensim.models import Word2Vec
from gensim.models.word2vec import _assign_binary_codes

from psdevise.errors import DataError
from psdevise.models.skipgram import SkipGram, SkipGramOptions, huffman, keep_probability

COUNTS = np.array([50, 30, 22, 9, 9, 4, 3, 1], np.int64)
TINY = SkipGramOptions(dim=5, window=2, sample=0.0)


def test_huffman_codes_are_a_prefix_code_as_short_as_gensims() -> None:
    codes, points = huffman(COUNTS)
    words = ["".join(map(str, c)) for c in codes]
    assert all(not b.startswith(a) for a in words for b in words if a != b)
    assert all(p[0] == len(COUNTS) - 2 for p in points)
    assert all(len(c) == len(p) for c, p in zip(codes, points, strict=True))
    theirs = Word2Vec(hs=1, negative=0, min_count=1)
    theirs.build_vocab_from_freq({str(i): int(n) for i, n in enumerate(COUNTS)})
    _assign_binary_codes(theirs.wv)
    lengths = {w: len(theirs.wv.get_vecattr(w, "code")) for w in theirs.wv.index_to_key}
    assert sum(n * len(c) for n, c in zip(COUNTS, codes, strict=True)) == sum(
        int(COUNTS[int(w)]) * n for w, n in lengths.items()
    )


def test_sub_sampling_follows_word2vecs_formula() -> None:
    counts = np.array([900, 90, 10])
    f = counts / 1000
    np.testing.assert_allclose(keep_probability(counts, 1e-2), np.minimum(1, np.sqrt(1e-2 / f) + 1e-2 / f))
    assert (keep_probability(counts, 0.0) == 1).all()


def reference(
    tables: dict[str, np.ndarray], sentences: list[list[int]], reduced: list[int], window: int, rate: float
) -> dict[str, np.ndarray]:
    """Hierarchical softmax, pair by pair, in float64."""
    codes, points = huffman(COUNTS)
    now = {k: v.astype(np.float64) for k, v in tables.items()}
    drawn = iter(reduced)
    for sentence in sentences:
        for i, word in enumerate(sentence):
            b = next(drawn)
            for j in range(max(0, i - window + b), min(len(sentence), i + window + 1 - b)):
                if j == i:
                    continue
                h = now["input"][sentence[j]]
                work = np.zeros_like(h)
                for bit, node in zip(codes[word], points[word], strict=True):
                    g = (1 - bit - 1 / (1 + np.exp(-h @ now["inner"][node]))) * rate
                    work += g * now["inner"][node]
                    now["inner"][node] += g * h
                now["input"][sentence[j]] += work
    return now


def test_the_kernel_against_the_formula_in_float64() -> None:
    model = SkipGram(COUNTS, TINY)
    rng = np.random.default_rng(0)
    tables = model.initial(rng)
    tables = {k: (v + rng.standard_normal(v.shape) * 0.3).astype(np.float32) for k, v in tables.items()}
    sentences = [rng.integers(0, 8, 12).astype(np.int32) for _ in range(5)]
    block = model.prepare(sentences, rng)
    reduced = np.random.RandomState(block.seed).randint(0, TINY.window, 60).tolist()
    expected = reference(tables, block.sentences, reduced, TINY.window, 0.05)
    before = {k: v.copy() for k, v in tables.items()}
    figures = model.train(tables, block, 0.05)
    assert figures.pairs == block.words == 60
    for name in tables:
        # gensim's sigmoid is a table of 1,000 steps over ±6, hence the tolerance.
        moved = np.abs(expected[name] - before[name]).max()
        assert np.abs(tables[name] - expected[name]).max() < 0.05 * moved
        assert np.abs(tables[name] - expected[name]).mean() < 0.02 * moved
        assert moved > 0.01


@pytest.mark.parametrize(("objective", "rate"), [("hierarchical_softmax", 0.2), ("negative_sampling", 0.05)])
def test_only_announced_rows_are_touched_and_the_loss_falls(objective: str, rate: float) -> None:
    counts = np.arange(400, 100, -1)
    options = SkipGramOptions(dim=8, window=2, sample=0.0, objective=objective)  # type: ignore[arg-type]
    model = SkipGram(counts, options)
    tables = model.initial(np.random.default_rng(1))
    sentences = [np.array([2 * i, 2 * i + 1] * 10, np.int32) for i in range(20)]
    losses = []
    for epoch in range(12):
        block = model.prepare(sentences, np.random.default_rng(epoch))
        before = {k: v.copy() for k, v in tables.items()}
        figures = model.train(tables, block, rate)
        losses.append(figures.loss / figures.pairs)
        for name, value in tables.items():
            touched = np.flatnonzero((value != before[name]).any(axis=1))
            assert set(touched) <= set(block.rows[name].tolist())
            if name != "output":  # the negatives of a block reach every one of so few terms
                assert len(block.rows[name]) < len(value)
    assert losses[-1] < 0.6 * losses[0]


def test_the_same_seed_gives_the_same_block_and_training() -> None:
    model = SkipGram(COUNTS, SkipGramOptions(dim=4, window=3, sample=0.05))
    sentences = [np.arange(8, dtype=np.int32)] * 30
    results = []
    for _ in range(2):
        tables = model.initial(np.random.default_rng(0))
        model.train(tables, model.prepare(sentences, np.random.default_rng(5)), 0.1)
        results.append(tables["input"])
    np.testing.assert_array_equal(*results)


def test_blocks_longer_than_a_kernel_call_are_cut() -> None:
    model = SkipGram(COUNTS, TINY)
    block = model.prepare([np.zeros(25_000, np.int32) + 3], np.random.default_rng(0))
    assert model.train(model.initial(np.random.default_rng(0)), block, 0.01).pairs == 25_000


def test_one_term_is_no_language() -> None:
    with pytest.raises(DataError, match="two terms"):
        SkipGram(np.array([3]), TINY)
