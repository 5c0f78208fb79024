from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from gensim.models import Word2Vec
from gensim.models.word2vec import _assign_binary_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.errors import DataError
from psdevise.models.huffman import huffman
from psdevise.models.skipgram import Block, SkipGram, SkipGramOptions, keep_probability

COUNTS = np.array([50, 30, 22, 9, 9, 4, 3, 1], np.int64)
OBJECTIVES = ["hierarchical_softmax", "negative_sampling"]
STEPS = ["adagrad", "sgd"]


def tiny(objective: str, window: int = 2, dim: int = 5, step: str = "sgd") -> SkipGram:
    options = SkipGramOptions(dim, window, 0.0, objective, negative=3, step=step)  # type: ignore[arg-type]
    return SkipGram(COUNTS, options)


def by_term(counts: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each term's code and the inner nodes on its path."""
    paths = huffman(counts)
    ends = paths.starts[1:]
    return np.split(paths.bits, ends), np.split(paths.nodes, ends)


def gensims(counts: np.ndarray) -> Word2Vec:
    model = Word2Vec(hs=1, negative=0, min_count=1)
    model.build_vocab_from_freq({str(i): int(n) for i, n in enumerate(counts)})
    _assign_binary_codes(model.wv)
    return model


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=60))
@settings(max_examples=40, deadline=None)
def test_huffman_is_a_prefix_code_of_gensims_total_length(found: list[int]) -> None:
    counts = np.sort(np.array(found, np.int64))[::-1]
    codes, points = by_term(counts)
    words = ["".join(map(str, c)) for c in codes]
    assert all(not b.startswith(a) for i, a in enumerate(words) for j, b in enumerate(words) if i != j)
    assert all(p[0] == len(counts) - 2 and len(p) == len(c) for c, p in zip(codes, points, strict=True))
    theirs = gensims(counts).wv
    ours = sum(int(n) * len(c) for n, c in zip(counts, codes, strict=True))
    assert ours == sum(int(counts[int(w)]) * len(theirs.get_vecattr(w, "code")) for w in theirs.index_to_key)


def test_without_ties_codes_and_points_are_gensims() -> None:
    counts = np.array([1 << k for k in range(12, 0, -1)], np.int64) + np.arange(12) ** 2
    counts[::-1].sort()
    codes, points = by_term(counts)
    theirs = gensims(counts).wv
    for i, (code, point) in enumerate(zip(codes, points, strict=True)):
        np.testing.assert_array_equal(code, theirs.get_vecattr(str(i), "code"))
        np.testing.assert_array_equal(point, theirs.get_vecattr(str(i), "point"))


def test_sub_sampling_follows_word2vecs_formula() -> None:
    counts = np.array([900, 90, 10])
    f = counts / 1000
    np.testing.assert_allclose(keep_probability(counts, 1e-2), np.minimum(1, np.sqrt(1e-2 / f) + 1e-2 / f))
    assert (keep_probability(counts, 0.0) == 1).all()


def windows(block: Block) -> Iterator[tuple[int, list[int], list[int], list[float]]]:
    """(word, its neighbours, its targets, their labels) of each word of a block."""
    for i, word in enumerate(block.terms.tolist()):
        near = [int(block.terms[j]) for j in range(block.low[i], block.high[i]) if j != i]
        at = slice(block.starts[i], block.starts[i] + block.lengths[i])
        yield word, near, block.targets[at].tolist(), block.labels[at].tolist()


def reference(tables: dict[str, np.ndarray], block: Block, rate: float) -> tuple[dict[str, np.ndarray], int]:
    """The module's equations in float64, a window, a row and a number at a time."""
    now = {k: v.astype(np.float64) for k, v in tables.items()}
    output = "inner" if "inner" in tables else "output"
    pairs = 0

    def step(table: str, row: int, gradient: np.ndarray) -> None:
        if "input.squares" not in tables:
            now[table][row] += rate * gradient
            return
        now[table + ".squares"][row] += (gradient**2).sum() / len(gradient)
        now[table][row] += rate * gradient / (np.sqrt(now[table + ".squares"][row]) + 1e-10)

    for _, near, targets, labels in windows(block):
        hidden, nodes = now["input"][near].copy(), now[output][targets].copy()
        error = np.array(labels) - 1 / (1 + np.exp(-hidden @ nodes.T))
        for n, target in enumerate(targets):
            step(output, target, sum(error[j, n] * hidden[j] for j in range(len(near))))
        for j, term in enumerate(near):
            step("input", term, sum(error[j, n] * nodes[n] for n in range(len(targets))))
        pairs += len(near)
    return now, pairs


def started(model: SkipGram, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Tables with random values; accumulators at 0.01."""
    drawn = {k: v + rng.standard_normal(v.shape) * 0.3 for k, v in model.initial(rng).items()}
    return {k: (v * 0 + 0.01 if k.endswith(".squares") else v).astype(np.float32) for k, v in drawn.items()}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("dim", "window"), [(5, 2), (16, 3), (33, 1)])
def test_training_is_the_formula(objective: str, step: str, dim: int, window: int) -> None:
    model = tiny(objective, window, dim, step)
    rng = np.random.default_rng(dim)
    tables = started(model, rng)
    block = model.prepare([rng.integers(0, 8, n).astype(np.int32) for n in (12, 1, 0, 7, 2, 20)], rng)
    assert len(block.terms) == 41  # the sentence of one word has no pairs
    expected, pairs = reference(tables, block, 0.1)
    before = {k: v.copy() for k, v in tables.items()}
    assert model.train(tables, block, 0.1).pairs == pairs
    assert ("input.squares" in tables) == (step == "adagrad")
    for name, values in tables.items():
        assert np.abs(values - before[name]).max() > 0.05
        np.testing.assert_allclose(values, expected[name], atol=2e-5, rtol=1e-4)


def test_the_updates_are_word2vecs_where_a_window_is_one_pair() -> None:
    """Sentences of two words: gensim's kernel makes the same updates, up to its table of sigmoids."""
    codes, points = by_term(COUNTS)
    theirs = Word2Vec(vector_size=5, window=1, sg=1, hs=1, negative=0, sample=0, min_count=1, workers=1)
    theirs.build_vocab_from_freq({str(i): int(n) for i, n in enumerate(COUNTS)})
    for i, (code, point) in enumerate(zip(codes, points, strict=True)):  # ties may be broken in other ways
        theirs.wv.expandos["code"][theirs.wv.key_to_index[str(i)]] = code
        theirs.wv.expandos["point"][theirs.wv.key_to_index[str(i)]] = point
    model = tiny("hierarchical_softmax", 1)
    rng = np.random.default_rng(2)
    tables = started(model, rng)
    order = [int(w) for w in theirs.wv.index_to_key]
    theirs.wv.vectors, theirs.syn1 = tables["input"][order].copy(), np.zeros((8, 5), np.float32)
    theirs.syn1[:7] = tables["inner"]
    sentences = [rng.permutation(8)[:2].astype(np.int32) for _ in range(30)]
    before = tables["input"].copy()
    theirs.train([[str(w) for w in s] for s in sentences], total_examples=30, epochs=1, start_alpha=0.1, end_alpha=0.1)
    model.train(tables, model.prepare(sentences, rng), 0.1)
    moved = np.abs(tables["input"] - before).max()
    assert moved > 0.2
    # Its table has 83 steps to the unit and is read a step or two low: σ(0) is .494 there.
    assert np.abs(tables["input"][order] - theirs.wv.vectors).max() < 0.05 * moved
    assert np.abs(tables["inner"] - theirs.syn1[:7]).max() < 0.05 * moved


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_targets_are_the_path_or_the_word_and_others(objective: str) -> None:
    model = tiny(objective)
    codes, points = by_term(COUNTS)
    block = model.prepare([np.arange(8, dtype=np.int32)] * 300, np.random.default_rng(0))
    drawn = []
    for word, _, targets, labels in windows(block):
        if objective == "hierarchical_softmax":
            assert targets == points[word].tolist()
            assert labels == (1 - codes[word].astype(float)).tolist()
        else:
            assert targets[0] == word
            assert word not in targets[1:]
            assert labels == [1.0] + [0.0] * (len(targets) - 1)
            drawn += targets[1:] if word == 7 else []
    if drawn:
        share = np.bincount(drawn, minlength=8) / len(drawn)
        wanted = COUNTS[:7] ** 0.75 / (COUNTS[:7] ** 0.75).sum()
        np.testing.assert_allclose(share[:7], wanted, atol=0.06)


def test_windows_stay_in_their_sentence_and_are_uniform() -> None:
    model = tiny("hierarchical_softmax", window=4)
    block = model.prepare([np.zeros(n, np.int32) for n in (3, 500, 9, 4000)], np.random.default_rng(0))
    ends = np.cumsum([3, 500, 9, 4000])
    first = np.concatenate([[0], ends])[np.searchsorted(ends, np.arange(4512), "right")]
    last = ends[np.searchsorted(ends, np.arange(4512), "right")]
    assert (block.low >= first).all()
    assert (block.high <= last).all()
    inside = slice(600, 4400)
    reach = np.arange(4512)[inside] - block.low[inside]
    np.testing.assert_array_equal(reach, block.high[inside] - 1 - np.arange(4512)[inside])
    np.testing.assert_allclose(np.bincount(reach)[1:] / len(reach), [0.25] * 4, atol=0.03)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("step", STEPS)
def test_only_announced_rows_are_touched_and_the_loss_falls(objective: str, step: str) -> None:
    counts = np.arange(6000, 1000, -1)
    options = SkipGramOptions(dim=8, window=2, sample=0.0, objective=objective, step=step)  # type: ignore[arg-type]
    model = SkipGram(counts, options)
    tables = model.initial(np.random.default_rng(1))
    sentences = [np.array([2 * i, 2 * i + 1] * 10, np.int32) for i in range(20)]
    losses = []
    for epoch in range(12):
        block = model.prepare(sentences, np.random.default_rng(epoch))
        assert set(block.rows) == set(tables)
        before = {k: v.copy() for k, v in tables.items()}
        figures = model.train(tables, block, 0.1)
        losses.append(figures.loss / figures.pairs)
        for name, value in tables.items():
            touched = np.flatnonzero((value != before[name]).any(axis=1))
            assert set(touched) <= set(block.rows[name].tolist())
            assert len(block.rows[name]) < len(value)
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_is_the_mean_of_minus_log_p() -> None:
    model = tiny("hierarchical_softmax", window=1)
    tables = started(model, np.random.default_rng(0))
    block = model.prepare([np.array([3, 6], np.int32)], np.random.default_rng(0))
    codes, points = by_term(COUNTS)
    score = tables["inner"][points[3]] @ tables["input"][6]
    expected = np.logaddexp(0, (2.0 * codes[3] - 1) * score).sum()  # the first window is always looked at
    figures = model.train(tables, block, 0.0)
    assert figures.pairs == 2
    assert figures.loss / 2 == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_gives_the_same_block_and_training() -> None:
    model = SkipGram(COUNTS, SkipGramOptions(dim=4, window=3, sample=0.05))
    sentences = [np.arange(8, dtype=np.int32)] * 30
    results = []
    for _ in range(2):
        tables = model.initial(np.random.default_rng(0))
        model.train(tables, model.prepare(sentences, np.random.default_rng(5)), 0.1)
        results.append(tables["input"])
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_block_without_pairs_changes_nothing(objective: str) -> None:
    model = tiny(objective)
    tables = model.initial(np.random.default_rng(0))
    before = tables["input"].copy()
    for sentences in ([], [np.array([2], np.int32)]):
        block = model.prepare(sentences, np.random.default_rng(0))
        assert block.words == len(sentences)
        assert all(len(r) == 0 for r in block.rows.values())
        assert model.train(tables, block, 0.1) == (0, 0.0)
    np.testing.assert_array_equal(tables["input"], before)


def test_what_is_not_finite_stays_so() -> None:
    """The shards refuse it; a sigmoid that swallowed it would hide a run that diverged."""
    model = tiny("hierarchical_softmax")
    tables = started(model, np.random.default_rng(0))
    tables["input"][1] = np.nan
    model.train(tables, model.prepare([np.array([0, 1, 2], np.int32)], np.random.default_rng(0)), 0.1)
    assert np.isnan(tables["inner"]).any()


def test_one_term_is_no_language() -> None:
    with pytest.raises(DataError, match="two terms"):
        SkipGram(np.array([3]), SkipGramOptions())
