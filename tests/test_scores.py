from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc

from psdevise import scores

RNG = np.random.default_rng(0)


@settings(max_examples=80)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 10), st.integers(0, 2**31), st.booleans())
def test_hits_against_plain_sorting(n: int, m: int, k: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.integers(0, 3, (n, m)) if tied else rng.random((n, m))).astype(np.float32)
    true = rng.integers(0, m, n)
    for row, t, hit, expected in zip(
        matrix, true, scores.hits(matrix, true, k), scores.places(matrix, true).expected_hits(k), strict=True
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


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 10), st.integers(0, 2**31), st.integers(1, 30))
def test_top_k_is_a_stable_sort_in_blocks_of_any_size(n: int, m: int, k: int, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 4, (n, m)).astype(np.float32)
    matrix[rng.random((n, m)) < 0.1] = -np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK", block)
        found = scores.top_k(matrix, k)
    np.testing.assert_array_equal(found, np.argsort(-matrix, axis=1, kind="stable")[:, :k])


@settings(max_examples=80)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 10), st.integers(0, 2**31), st.integers(1, 30))
def test_hierarchical_precision_is_that_of_the_worst_order_of_ties(
    n: int, m: int, k: int, seed: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 3, (n, m)).astype(np.float32)
    matrix[rng.random((n, m)) < 0.2] = -np.inf
    correct = [np.flatnonzero(rng.random(m) < 0.4) for _ in range(3)]
    true = rng.integers(0, 3, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK", block)
        found = scores.hierarchical_precision(matrix, correct, true, k)
    for row, label, value in zip(matrix, true, found, strict=True):
        right = np.isin(np.arange(m), correct[label])
        worst = np.lexsort((right, -row))[:k]
        assert value == pytest.approx((right[worst] & np.isfinite(row[worst])).sum() / k)


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**31))
def test_hp_at_1_is_hit_at_1(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 3, (n, m)).astype(np.float32)
    true = rng.integers(0, m, n)
    itself = [np.array([i]) for i in range(m)]
    found = scores.hierarchical_precision(matrix, itself, true, 1)
    np.testing.assert_array_equal(found, scores.hits(matrix, true, 1))


def test_a_score_that_is_no_number_is_the_worst() -> None:
    matrix = np.array([[np.nan, 0.1, 0.2]], np.float32)
    zero, one = np.array([0]), np.array([1])
    assert scores.top_k(matrix, 3).tolist() == [[2, 1, 0]]
    assert scores.hits(matrix, zero, 3).tolist() == scores.places(matrix, zero).expected_hits(3).tolist() == [0.0]
    assert scores.hits(matrix, one, 2).tolist() == [1.0]
    assert scores.hierarchical_precision(matrix, [np.array([0, 1])], zero, 3).tolist() == [1 / 3]


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
    zeros = scores.tie_groups(np.array([[0.0, 1.0], [-0.0, 1.0]], np.float32))
    assert zeros[0] == zeros[1]


def test_labels_of_the_same_several_vectors_are_one_group() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    groups = scores.tie_groups_of_sets(np.stack([a, b, b, a, a, b, c]), np.array([0, 0, 1, 2, 2, 2, 3]))
    assert groups.tolist() == [0, 1, 0, 2]  # {a, b}, {b}, {a, b} again, {c}
    single = np.random.default_rng(0).integers(0, 3, (50, 2)).astype(np.float32)
    same = scores.tie_groups_of_sets(single, np.arange(50))
    assert ((same[:, None] == same) == (single[:, None] == single).all(axis=2)).all()


def test_tie_groups_are_scored_alike_and_their_ceilings_reached() -> None:
    """A perfect system over vectors that three, two and one candidates share, its scores off in the last bit."""
    groups = np.array([2, 0, 2, 1, 0, 2])
    true = RNG.integers(0, 6, 500)
    matrix = (groups[None, :] == groups[true][:, None]).astype(np.float32)
    matrix *= 1 - RNG.random(matrix.shape).astype(np.float32) * 1e-6
    flat = scores.level(matrix, groups)
    for group in range(3):
        assert (flat[:, groups == group] == matrix[:, groups == group].max(axis=1, keepdims=True)).all()
    for k in (1, 2, 3):
        assert scores.hits(flat, true, k).mean() == scores.hit_ceiling(groups, true, k)
        expected = scores.places(flat, true).expected_hits(k).mean()
        assert expected == pytest.approx(scores.hit_ceiling(groups, true, k, expected=True))
    assert scores.hits(matrix, true, 1).mean() > scores.hit_ceiling(groups, true, 1)  # what `level` is for
    alone = np.arange(6)
    assert scores.level(matrix, alone) is matrix
    assert scores.hit_ceiling(alone, true, 1) == 1.0


def test_intervals_of_class_means() -> None:
    """Three rare pictures of one class weigh as much as 300 of another."""
    true = np.array([0] * 300 + [1] * 3)
    values = np.array([1.0] * 300 + [0.0] * 3)
    balanced = scores.class_balanced(values, true)
    assert balanced.mean() == pytest.approx(0.5) == scores.class_mean(values, true)
    assert scores.bootstrap(balanced).low > 0.48  # only the share of the first class varies


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


def by_subtraction(matrix: np.ndarray, true: np.ndarray, is_seen: np.ndarray, bias: float) -> tuple[float, float]:
    """Seen and unseen accuracy by the definition, in float64, ties lost."""
    shifted = matrix.astype(np.float64) - bias * is_seen
    right = scores.hits(shifted.astype(np.float64), true, 1)
    picture_seen = is_seen[true]
    return float(right[picture_seen].mean()), float(right[~picture_seen].mean())


IS_SEEN = np.array([True, True, True, False, False, True, False])


def generalised(n: int, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    matrix = rng.standard_normal((n, 7)).astype(np.float32)
    matrix[:, IS_SEEN] += 1
    true = rng.integers(0, 7, n)
    matrix[np.arange(n), true] += 0.7
    matrix[0] *= 50  # one outlier must not make the curve coarse
    return (matrix.round() if tied else matrix), true


@pytest.mark.parametrize("tied", [False, True])
def test_calibration_against_subtracting_each_bias(tied: bool) -> None:
    matrix, true = generalised(300, tied)
    curve = scores.calibration(matrix, true, IS_SEEN, steps=50)
    assert len(curve.bias) in (50, 51) if not tied else len(curve.bias) <= 51
    assert (np.diff(curve.bias) > 0).all()
    assert 0.0 in curve.bias
    for bias, seen, unseen in zip(curve.bias, curve.seen, curve.unseen, strict=True):
        assert (seen, unseen) == pytest.approx(by_subtraction(matrix, true, IS_SEEN, bias))
    best = max(scores.harmonic(s, u) for s, u in zip(curve.seen, curve.unseen, strict=True))
    at = int(np.argmin(np.abs(curve.bias - curve.best_bias())))
    assert scores.harmonic(float(curve.seen[at]), float(curve.unseen[at])) == best


def test_the_area_under_the_curve_is_that_of_all_biases() -> None:
    matrix, true = generalised(300)
    others = matrix.astype(np.float64).copy()
    gaps = others[:, IS_SEEN].max(axis=1)[:, None] - others[:, ~IS_SEEN]
    own = others[np.arange(300), true][:, None]
    critical = np.unique(np.concatenate([gaps.ravel(), (others[:, IS_SEEN] - own).ravel(), [-100.0, 100.0]]))
    points = [by_subtraction(matrix, true, IS_SEEN, b) for b in (critical[1:] + critical[:-1]) / 2]
    seen, unseen = np.array(points).T
    for steps in (5, 201, 9999):
        assert scores.calibration(matrix, true, IS_SEEN, steps).area == pytest.approx(auc(unseen, seen), abs=1e-9)


def test_calibration_where_one_side_is_missing() -> None:
    matrix, true = generalised(50)
    every = np.ones(7, bool)
    assert scores.calibration(matrix, true, every).seen[0] == pytest.approx(scores.hits(matrix, true, 1).mean())
    assert scores.calibration(matrix, true, ~every).unseen[-1] == pytest.approx(scores.hits(matrix, true, 1).mean())
    nothing = scores.calibration(np.zeros((4, 7), np.float32), np.arange(4), IS_SEEN)
    assert nothing.area == 0
    assert nothing.best_bias() == 0


def test_the_interval_of_the_harmonic_mean() -> None:
    rng = np.random.default_rng(3)
    seen, unseen = (rng.random(3000) < 0.6).astype(float), (rng.random(500) < 0.3).astype(float)
    found = scores.bootstrap_harmonic(seen, unseen)
    assert found.value == scores.harmonic(seen.mean(), unseen.mean())
    assert found.low < found.value < found.high
    # By error propagation: dH/dS = 2U²/(S+U)², dH/dU = 2S²/(S+U)².
    s, u = seen.mean(), unseen.mean()
    error = np.hypot(2 * u**2 * seen.std() / 3000**0.5, 2 * s**2 * unseen.std() / 500**0.5) / (s + u) ** 2
    assert found.high - found.low == pytest.approx(3.92 * error, rel=0.15)
    assert np.isnan(scores.bootstrap_harmonic(seen, unseen[:0]).value)
