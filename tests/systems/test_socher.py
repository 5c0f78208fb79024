"""Socher 2013's parts against float64 references and a published LoOP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from psdevise.systems.linear import SoftmaxHead
from psdevise.systems.novelty import LocalOutlierProbability, fit_gaussians, squared_distances
from psdevise.systems.socher import Socher, nearest
from tests.systems.lessons import SEEN, UNSEEN, known, lesson, pictures
from tests.systems.test_recipes import QUICK


@pytest.mark.parametrize("extent", [1, 2, 3])
def test_loop_is_pynomalys(extent: int) -> None:
    from PyNomaly import loop

    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(0, 1, (70, 4)), rng.normal(8, 0.3, (30, 4)), rng.uniform(-9, 15, (5, 4))])
    model = LocalOutlierProbability(data, neighbours=10)
    found = model.probability(model.training_plof, extent)
    reference = loop.LocalOutlierProbability(data, extent=extent, n_neighbors=10).fit().local_outlier_probabilities
    np.testing.assert_allclose(found, np.asarray(reference, np.float64), atol=1e-6)
    assert found[-5:].mean() > found[:70].mean() + 0.2


def test_loop_of_a_new_point_by_hand() -> None:
    """Four training points on a line, one neighbour each: at 0, 1, 10, 12; a new one at 4."""
    model = LocalOutlierProbability(np.array([[0.0], [1.0], [10.0], [12.0]]), neighbours=1)
    np.testing.assert_allclose(model.training_plof, 0, atol=1e-12)
    model = LocalOutlierProbability(np.array([[0.0], [1.0], [3.0], [10.0]]), neighbours=1)
    # spreads 1, 1, 2, 7; nearest 1, 0, 1, 3; PLOF 0, 0, 1, 2.5; new point 4 → nearest 3, spread 1 → 1/2 − 1
    np.testing.assert_allclose(model.training_plof, [0, 0, 1, 2.5], atol=1e-12)
    np.testing.assert_allclose(model.plof(np.array([[4.0], [30.0]])), [-0.5, 20 / 7 - 1], atol=1e-12)
    assert model.probability(np.array([-0.5]))[0] == 0.0


def test_gaussians_are_the_mixture_of_the_formula() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 3, 60)
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    mapped = vectors[targets] + rng.normal(0, [[0.5]], (60, 4))
    found = fit_gaussians(mapped, targets, vectors)
    density = np.zeros(60)
    for y in range(3):
        own = mapped[targets == y]
        variance = np.mean([np.sum((f - vectors[y]) ** 2) / 4 for f in own])
        density += len(own) / 60 * multivariate_normal(vectors[y], variance * np.eye(4)).pdf(mapped)
    np.testing.assert_allclose(found.log_likelihood(mapped), np.log(density), rtol=1e-6)


def test_squared_distances_are_never_negative() -> None:
    points = np.full((3, 5), 1e4, np.float32)
    assert (squared_distances(points, points) >= 0).all()


def test_nearest_is_the_posterior_of_equal_gaussians() -> None:
    mapped = np.array([[0.0, 0.0], [3.0, 0.0]], np.float32)
    vectors = np.array([[1.0, 0.0], [4.0, 0.0]], np.float32)
    p = nearest(mapped, vectors, 2.0)
    wanted = np.exp(-0.25 * np.array([[1.0, 16.0], [4.0, 1.0]]))
    np.testing.assert_allclose(p, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("novelty", ["loop", "threshold"])
def test_seen_and_unseen_are_told_apart_and_named(novelty: str, tmp_path: Path) -> None:
    given = lesson(tmp_path)
    given = replace(given, fitted={"softmax": SoftmaxHead(QUICK).fit(given)})
    recipe = Socher(novelty=novelty, quantile=0.05, penalty=0.001)  # type: ignore[arg-type]
    learned = recipe.fit(given)
    labels = (*SEEN, *UNSEEN)
    scores = recipe.score(learned, known(), pictures(list(labels) * 30, 9), labels)
    right = np.array(labels)[scores.argmax(axis=1)] == list(labels) * 30
    is_seen = np.isin(list(labels) * 30, SEEN)
    assert right[is_seen].mean() > 0.8
    assert right[~is_seen].mean() > 0.8
    only = recipe.score(learned, known(), pictures(list(UNSEEN) * 30, 9), UNSEEN)
    assert (only.argmax(axis=1) == [0, 1] * 30).mean() > 0.95
