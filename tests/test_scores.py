from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc

from psdevise import scores
from psdevise.index import Index

RNG = np.random.default_rng(0)


@settings(max_examples=80)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 10), st.integers(0, 2**31), st.booleans())
def test_hits_against_plain_sorting(n: int, m: int, k: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.integers(0, 3, (n, m)) if tied else rng.random((n, m))).astype(np.float32)
    true = rng.integers(0, m, n)
    for row, t, hit, expected in zip(
        matrix, true, scores.hits(matrix, true, k), scores.expected_hits(matrix, true, k), strict=True
    ):
        others = np.delete(row, t)
        assert hit == float((others >= row[t]).sum() < k)
        draws = []
        for shuffle in range(60):
            order = np.random.default_rng(shuffle).permutation(m)
            best = order[np.argsort(-row[order], kind="stable")][:k]
            draws.append(t in best)
        assert abs(np.mean(draws) - expected) < 0.3
        if not tied:
            assert hit == expected


def test_a_class_that_cannot_be_named_is_never_hit() -> None:
    matrix = np.array([[0.1, -np.inf], [0.1, -np.inf]], np.float32)
    assert scores.hits(matrix, np.array([1, 0]), 5).tolist() == [0.0, 1.0]


def test_hierarchical_precision_against_sets() -> None:
    matrix = RNG.random((40, 9)).astype(np.float32)
    correct = [RNG.permutation(9)[: RNG.integers(1, 9)] for _ in range(5)]
    true = RNG.integers(0, 5, 40)
    for k in (1, 3, 9):
        found = scores.hierarchical_precision(matrix, correct, true, k)
        for row, t, value in zip(matrix, true, found, strict=True):
            best = set(np.argsort(-row)[:k].tolist())
            assert value == pytest.approx(len(best & set(correct[t].tolist())) / k)
        assert found.mean() <= scores.hp_ceiling(correct, true, k, 9) + 1e-12


def test_chance_and_ceiling_of_hp_are_what_random_and_perfect_orders_get() -> None:
    correct = [np.array([0, 1]), np.array([1, 2, 3]), np.array([4])]
    true = RNG.integers(0, 3, 4000)
    random = RNG.random((4000, 6)).astype(np.float32)
    perfect = np.zeros((4000, 6), np.float32)
    for i, t in enumerate(true):
        perfect[i, correct[t]] = 1
    for k in (1, 2, 4):
        got = scores.hierarchical_precision(random, correct, true, k).mean()
        assert got == pytest.approx(scores.hp_chance(correct, true, k, 6), abs=0.03)
        best = scores.hierarchical_precision(perfect, correct, true, k).mean()
        assert best == pytest.approx(scores.hp_ceiling(correct, true, k, 6), abs=1e-9)


def test_tie_groups_and_class_mean() -> None:
    groups = scores.tie_groups(np.array([[1, 0], [0, 1], [1, 0], [2, 2]], np.float32))
    assert groups[0] == groups[2] != groups[1]
    assert scores.tied(groups) == 2
    assert scores.class_mean(np.array([1.0, 1, 0, 1]), np.array([0, 0, 0, 1])) == pytest.approx((2 / 3 + 1) / 2)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        sample = (np.random.default_rng(seed).random(150) < 0.3).astype(float)
        interval = scores.bootstrap(sample, seed)
        assert interval.low <= interval.value <= interval.high
        held += interval.low <= 0.3 <= interval.high
    assert 180 <= held <= 200


def test_paired_differences_are_narrower_than_separate_ones() -> None:
    a = (RNG.random(800) < 0.5).astype(float)
    b = np.where(RNG.random(800) < 0.05, 1 - a, a)
    both = scores.paired(a, b)
    assert both.high - both.low < 0.7 * (scores.bootstrap(a).high - scores.bootstrap(a).low)
    assert scores.paired(a, a) == (0.0, 0.0, 0.0)


def test_many_distinct_values_are_resampled_too() -> None:
    values = RNG.random(300)
    interval = scores.bootstrap(values)
    error = values.std() / np.sqrt(300)
    assert interval.high - interval.low == pytest.approx(3.92 * error, rel=0.15)


def test_calibration_against_subtracting_each_bias() -> None:
    matrix = RNG.standard_normal((120, 7)).astype(np.float32)
    is_seen = np.array([True, True, True, False, False, True, False])
    matrix[:, is_seen] += 1
    true = RNG.integers(0, 7, 120)
    matrix[np.arange(120), true] += 0.7
    curve = scores.calibration(matrix, true, is_seen)
    for bias, seen, unseen in zip(curve.bias, curve.seen, curve.unseen, strict=True):
        best = (matrix - bias * is_seen).argmax(axis=1)
        right = best == true
        assert seen == pytest.approx(right[is_seen[true]].mean(), abs=0.02)
        assert unseen == pytest.approx(right[~is_seen[true]].mean(), abs=0.02)
    order = np.lexsort((-curve.seen, curve.unseen))
    assert curve.area == pytest.approx(auc(curve.unseen[order], curve.seen[order]))
    best = max(scores.harmonic(s, u) for s, u in zip(curve.seen, curve.unseen, strict=True))
    at = int(np.argmin(np.abs(curve.bias - curve.best_bias())))
    assert scores.harmonic(float(curve.seen[at]), float(curve.unseen[at])) == best


@pytest.mark.parametrize("reading", ["by_class", "by_image"])
def test_map_at_100_against_its_words(reading: str) -> None:
    n, m = 130, 5
    matrix, relevant = RNG.random((n, m)).astype(np.float32), RNG.random((n, m)) < 0.3
    weights = RNG.random(m)
    expected = []
    for c in range(m):
        by_k = []
        for k in range(1, 101):
            if reading == "by_class":
                top = np.argsort(-matrix[:, c], kind="stable")[:k]
                by_k.append(relevant[top, c].mean())
            else:
                listed = [i for i in range(n) if c in np.argsort(-matrix[i], kind="stable")[:k]]
                by_k.append(np.mean([relevant[i, c] for i in listed]) if listed else 0.0)
        expected.append(np.mean(by_k) * weights[c])
    assert scores.map_at_100(matrix, relevant, reading, weights) == pytest.approx(np.mean(expected))


def test_the_index_finds_what_sorting_finds() -> None:
    vectors = RNG.standard_normal((50, 8)).astype(np.float32)
    queries = RNG.standard_normal((5, 8)).astype(np.float32)
    index = Index([str(i) for i in range(50)], vectors)
    found = index.nearest(queries, 7)
    for query, row in zip(queries, found, strict=True):
        assert [int(name) for name, _ in row] == np.argsort(-(vectors @ query))[:7].tolist()
    assert len(index.nearest(queries, 99)[0]) == 50
