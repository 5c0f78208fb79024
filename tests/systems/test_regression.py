"""Regressions with some pictures left out, against the plain ones of the others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from psdevise.errors import DataError
from psdevise.systems import regression
from psdevise.systems.devise import ridge


def test_the_inverse_is_whole_beyond_one_block() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((regression.BLOCK + 37, 60)).astype(np.float32)
    kernel = values @ values.T
    found = regression.inverse(kernel, 0.5)
    np.testing.assert_array_equal(found, found.T)
    damped = kernel + 0.5 * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    np.testing.assert_allclose(found @ damped, np.eye(len(kernel)), atol=2e-4)


def test_ridge_by_inner_products_is_the_primal_one() -> None:
    rng = np.random.default_rng(2)
    values, targets = rng.standard_normal((30, 80)).astype(np.float32), rng.standard_normal((30, 5)).astype(np.float32)
    kernel = values @ values.T
    every = np.arange(30)
    found = (regression.ridge(regression.inverse(kernel, 0.2), every, targets).T @ values).astype(np.float64)
    penalty = 0.2 * np.square(values.astype(np.float64)).sum() / 30
    wanted = np.linalg.solve(values.T.astype(np.float64) @ values + penalty * np.eye(80), values.T @ targets).T
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-5)
    square = values[:, :30]  # as many features as pictures: both forms have the same unit of λ
    same = regression.ridge(regression.inverse(square @ square.T, 0.2), every, targets).T @ square
    np.testing.assert_allclose(same, ridge(square, targets, 0.2), rtol=5e-3, atol=1e-4)


def test_ridge_by_inner_products_without_some_pictures_is_that_of_the_others() -> None:
    rng = np.random.default_rng(5)
    values, targets = rng.standard_normal((40, 90)).astype(np.float32), rng.standard_normal((40, 3)).astype(np.float32)
    kernel = values @ values.T
    kept = np.sort(rng.permutation(40)[:29])
    found = regression.ridge(regression.inverse(kernel, 0.1), kept, targets[kept])
    damped = kernel[np.ix_(kept, kept)].astype(np.float64) + 0.1 * np.trace(kernel) / 40 * np.eye(29)
    np.testing.assert_allclose(found, np.linalg.solve(damped, targets[kept]), rtol=1e-3, atol=1e-6)


def test_softmax_of_the_kept_pictures_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    values = (30 * rng.standard_normal((80, 100))).astype(np.float32)
    kept = np.sort(rng.permutation(80)[:60])
    targets = (values[kept, 0] > 0).astype(np.int64) + (values[kept, 1] > 15)
    weight, bias = regression.softmax(values, kept, targets, 3, 1e-2)
    # scikit-learn: C Σ loss + ‖W‖²/2
    scale = np.square(values).sum() / 80
    reference = LogisticRegression(C=1 / (60 * 1e-2 * scale), max_iter=5000, tol=1e-8)
    wanted = reference.fit(values[kept].astype(np.float64), targets).decision_function(values)
    found = values @ weight.T + bias
    centred = found - found.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centred, wanted - wanted.mean(axis=1, keepdims=True), atol=0.01)


def test_a_penalty_too_small_for_repeated_pictures_is_said() -> None:
    values = np.repeat(np.random.default_rng(0).standard_normal((5, 3)), 30, axis=0).astype(np.float32)
    with pytest.raises(DataError, match="singular"):
        regression.inverse(values @ values.T, 1e-7)
