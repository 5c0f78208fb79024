"""Socher's two ways to tell seen from unseen pictures, one threshold and one picture at a time in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from psdevise.compare import seen_or_unseen
from psdevise.compare.cells import Arrays
from psdevise.systems.novelty import LocalOutlierProbability

RNG = np.random.default_rng(0)
SEEN, UNSEEN = np.array([0, 2, 3]), np.array([1, 4])
VECTORS = RNG.standard_normal((5, 3))
TARGETS = np.repeat(np.arange(3), (30, 20, 10))
TRAIN = VECTORS[SEEN[TARGETS]] + RNG.normal(0, 0.6, (60, 3))
TRUE = np.repeat(np.arange(5), 12)
MAPPED = VECTORS[TRUE] + RNG.normal(0, 0.6, (60, 3))
SEEN_P = RNG.dirichlet(np.ones(3), 60)
SEEN_P[:, 0] += 0.5 * (TRUE == 0)
SEEN_P /= SEEN_P.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def found() -> Arrays:
    return seen_or_unseen.both(MAPPED, TRAIN, SEEN_P, VECTORS, (SEEN, UNSEEN), TARGETS, TRUE)


def variances() -> list[float]:
    return [
        float(((TRAIN[i == TARGETS] - VECTORS[y]) ** 2).sum() / (i == TARGETS).sum() / 3) for i, y in enumerate(SEEN)
    ]


def likelihood(points: np.ndarray) -> np.ndarray:
    parts = [
        (i == TARGETS).mean() * multivariate_normal(VECTORS[y], variance * np.eye(3)).pdf(points)
        for i, (y, variance) in enumerate(zip(SEEN, variances(), strict=True))
    ]
    return np.log(np.sum(parts, axis=0))


def accuracies(answers: list[int]) -> tuple[float, float]:
    right, of_seen = np.array(answers) == TRUE, np.isin(TRUE, SEEN)
    return float(right[of_seen].mean()), float(right[~of_seen].mean())


def test_the_curve_goes_over_all_training_likelihoods(found: Arrays) -> None:
    own, curve = likelihood(MAPPED), []
    for threshold in (-np.inf, *np.sort(likelihood(TRAIN)) - 1e-9, np.inf):
        answers = []
        for i, point in enumerate(MAPPED):
            if own[i] < threshold:
                answers.append(min(UNSEEN, key=lambda y: float(np.linalg.norm(point - VECTORS[y]))))
            else:
                answers.append(SEEN[SEEN_P[i].argmax()])
        curve.append(accuracies(answers))
    np.testing.assert_allclose(found["curve"], curve, atol=1e-6)
    assert len({point for point in curve}) > 10, "else nothing is tested"
    steps = itertools.pairwise(curve)
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in steps)
    assert float(found["area"][0]) == pytest.approx(area)


def test_loop_weighs_the_two_classifiers(found: Arrays) -> None:
    model = LocalOutlierProbability(TRAIN)
    for extent in (1, 3, 13):
        novel = model.probability(model.plof(MAPPED), extent)
        answers = []
        for i, point in enumerate(MAPPED):
            density = [np.exp(-((point - VECTORS[y]) ** 2).sum() / 2 / np.mean(variances())) for y in UNSEEN]
            p = {int(y): (1 - novel[i]) * SEEN_P[i, k] for k, y in enumerate(SEEN)}
            p |= {int(y): novel[i] * density[k] / sum(density) for k, y in enumerate(UNSEEN)}
            answers.append(max(p, key=lambda y: p[y]))
        np.testing.assert_allclose(found["loop"][extent - 1], accuracies(answers), atol=1e-6)
    assert len(found["loop"]) == 13
