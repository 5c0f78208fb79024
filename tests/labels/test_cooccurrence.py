"""PMI by hand, and its factorisation against float64 references, also where it is not positive definite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from psdevise.errors import LabelError
from psdevise.labels.cooccurrence import association, count, factorise, pmi

PICTURES = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]], bool)  # the fourth label never occurs


def test_counts_and_pmi_by_hand() -> None:
    counts = count(PICTURES)
    assert counts.each.tolist() == [3, 2, 2, 0]
    assert counts.together[0].tolist() == [3, 2, 1, 0]
    found = pmi(counts, "zero")
    # P(0, 1) = 2/4, P(0) = 3/4, P(1) = 2/4: log 4/3; P(0, 2) = 1/4: log 2/3; 1 and 2 never together
    np.testing.assert_allclose(found[0], [np.log(4 / 3), np.log(4 / 3), np.log(2 / 3), 0])
    assert found[1, 2] == 0
    assert (found[3] == 0).all()
    np.testing.assert_allclose(np.diag(found)[:3], -np.log([3 / 4, 1 / 2, 1 / 2]))
    np.testing.assert_allclose(pmi(counts), np.maximum(found, 0))
    np.testing.assert_allclose(pmi(counts, "shift", 1.2), np.maximum(found - np.log(1.2), 0))
    np.testing.assert_allclose(pmi(counts, "shift", 0.5)[0, 2], np.log(2 / 3) + np.log(2))
    assert pmi(counts, "shift", 0.5)[1, 2] == 0, "a pair that never occurs stays at the bottom"
    with pytest.raises(LabelError, match="shift is 0"):
        pmi(counts, "shift", 0.0)


def test_a_part_of_the_counts_is_the_counts_of_that_part() -> None:
    chosen = np.array([2, 0])
    part, whole = count(PICTURES).of(chosen), count(PICTURES[:, chosen])
    np.testing.assert_array_equal(part.together, whole.together)
    np.testing.assert_array_equal(part.each, whole.each)


def test_of_a_positive_definite_matrix_nothing_is_lost() -> None:
    half = np.random.default_rng(0).standard_normal((6, 9))
    matrix = half @ half.T
    found = factorise(matrix, 6)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, matrix, atol=1e-9)
    assert (found.negative, found.dropped, found.cut) == (0, 0.0, 0.0)
    np.testing.assert_allclose(found.place(matrix), found.vectors, atol=1e-9)


# Not of numbers like 1e-288, with which the reference does not converge.
@given(arrays(np.float64, (5, 5), elements=st.floats(-3, 3).map(lambda x: round(x, 6))), st.integers(1, 5))
def test_it_is_the_best_of_its_rank_also_where_eigenvalues_are_negative(drawn: np.ndarray, k: int) -> None:
    matrix = (drawn + drawn.T) / 2
    found = factorise(matrix, k)
    values = np.linalg.eigvals(matrix.astype(complex)).real  # by another algorithm than the one for symmetric matrices
    best = np.sort(np.maximum(values, 0))[::-1]
    np.testing.assert_allclose(found.values, best[:k], atol=1e-6)
    # ‖A − EEᵀ‖² of the nearest positive semidefinite matrix of rank k is the sum over what is left out.
    left = np.square(np.minimum(values, 0)).sum() + np.square(best[k:]).sum()
    np.testing.assert_allclose(np.square(matrix - found.vectors @ found.vectors.T).sum(), left, atol=1e-5)
    mass = np.abs(values).sum()
    if mass > 1e-3:
        assert found.dropped == pytest.approx(-values[values < 0].sum() / mass, abs=1e-6)
        assert found.cut == pytest.approx(best[k:].sum() / mass, abs=1e-6)
        assert found.negative == pytest.approx((values < -1e-9).sum(), abs=int((np.abs(values) < 1e-6).sum()))


def test_a_new_label_that_occurs_as_a_known_one_lies_at_its_place() -> None:
    rng = np.random.default_rng(1)
    pictures = rng.random((400, 8)) < 0.3
    twin = np.concatenate([pictures, pictures[:, :1]], axis=1)  # the ninth is on the pictures of the first
    counts = count(twin)
    known = np.arange(8)
    factors = factorise(pmi(counts.of(known), "zero"), 8)
    row = association(counts.together[8:, :8], counts.each[8:], counts.each[:8], counts.pictures, "zero")
    placed = factors.place(row)[0]
    nearest = np.linalg.norm(factors.vectors - placed, axis=1).argmin()
    assert nearest == 0


@pytest.mark.parametrize(("matrix", "k"), [(np.eye(3), 0), (np.eye(3), 4), (np.triu(np.ones((3, 3))), 2)])
def test_what_cannot_be_factorised_is_refused(matrix: np.ndarray, k: int) -> None:
    with pytest.raises(LabelError):
        factorise(matrix, k)
