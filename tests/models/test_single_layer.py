"""Coates and Ng's features against loops over patches in float64."""

from __future__ import annotations

import numpy as np
import pytest

from psdevise.models.single_layer import SingleLayerOptions, Standard, fit


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)


def options(coding: str, bases: int = 5) -> SingleLayerOptions:
    return SingleLayerOptions(coding=coding, bases=bases, patch=6, patches=300, iterations=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("coding", ["omp1", "triangle"])
def test_codes_are_those_of_a_loop_over_positions(pictures: np.ndarray, coding: str) -> None:
    layer = fit(pictures, options(coding), np.random.default_rng(1))
    found = layer.codes(pictures)
    mean, whitener, dictionary = (a.astype(np.float64) for a in (layer.mean, layer.whitener, layer.dictionary))
    for n, picture in enumerate(pictures):
        wanted = np.zeros((2, 2, found.shape[1] // 4))
        for top in range(7):
            for left in range(7):
                # The library's patches hold all of a colour first.
                patch = picture[top : top + 6, left : left + 6].transpose(2, 0, 1).reshape(-1).astype(np.float64)
                patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 10)
                z = whitener @ (patch - mean)
                if coding == "omp1":
                    dots = dictionary @ z
                    code = np.concatenate([np.maximum(0, dots - 0.25), np.maximum(0, -dots - 0.25)])
                else:
                    distance = np.linalg.norm(dictionary - z, axis=1)
                    code = np.maximum(0, distance.mean() - distance)
                wanted[int(top >= 4), int(left >= 4)] += code  # of 7 positions the first half has 4
        np.testing.assert_allclose(found[n], wanted.reshape(-1), rtol=2e-3, atol=2e-3)


def test_whitened_patches_have_the_covariance_that_zca_gives() -> None:
    smooth = np.cumsum(np.random.default_rng(2).integers(-9, 10, (40, 12, 12, 3)), axis=2)
    pictures = np.clip(128 + smooth, 0, 255).astype(np.uint8)
    layer = fit(pictures, SingleLayerOptions(bases=3, patches=4000, iterations=1), np.random.default_rng(0))
    # P C P = C / (C + .1) in C's own basis: every eigenvalue of P gives back one of C, 1/p² − .1.
    scale = np.linalg.eigvalsh(layer.whitener.astype(np.float64))
    assert scale.min() > 0
    assert scale.max() == pytest.approx(0.1**-0.5, rel=0.02), "a direction without variance is divided by √.1"


def test_atoms_are_unit_and_find_planted_directions() -> None:
    rng = np.random.default_rng(3)
    from psdevise.models.single_layer import _one_atom

    planted = np.linalg.qr(rng.standard_normal((20, 4)))[0].T.astype(np.float32)
    gains = rng.standard_normal((2000, 1)).astype(np.float32) * 3
    white = gains * planted[rng.integers(4, size=2000)] + 0.01 * rng.standard_normal((2000, 20)).astype(np.float32)
    atoms = _one_atom(white, SingleLayerOptions(bases=16, iterations=20), np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-5)
    assert (np.abs(atoms @ planted.T).max(axis=0) > 0.99).all()


def test_centroids_are_scikit_learns_fixed_point() -> None:
    from sklearn.cluster import KMeans

    from psdevise.models.single_layer import _centroids

    rng = np.random.default_rng(4)
    white = np.concatenate([rng.normal(at, 0.2, (100, 3)) for at in (-4, 0, 5)]).astype(np.float32)
    found = _centroids(white, SingleLayerOptions(coding="triangle", bases=3, iterations=50), np.random.default_rng(0))
    again = KMeans(3, init=found, n_init=1, max_iter=1).fit(white).cluster_centers_
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(again, axis=0), atol=1e-4)


def test_standard_uses_training_figures_alone() -> None:
    values = np.random.default_rng(5).normal(3, 2, (50, 4)).astype(np.float32)
    standard = Standard(values)
    wanted = (7.0 - values.mean(axis=0)) / np.sqrt(values.var(axis=0) + 0.01)
    np.testing.assert_allclose(standard(np.full((1, 4), 7.0, np.float32))[0], wanted, rtol=1e-5)


def test_the_same_seed_gives_the_same_features(pictures: np.ndarray) -> None:
    one, other = (fit(pictures, options("omp1"), np.random.default_rng(9)).codes(pictures) for _ in range(2))
    np.testing.assert_array_equal(one, other)
