"""MAP@100 against its definition in words, and its bounds against all rankings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from psdevise.compare import map100

RNG = np.random.default_rng(0)


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
    assert map100.map_at_100(matrix, relevant, reading, weights) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("reading", ["by_class", "by_image"])
@pytest.mark.parametrize("labels", [1, 3])
def test_chance_and_ceiling_of_map(reading: str, labels: int) -> None:
    n, m = 150, 12
    relevant = np.zeros((n, m), bool)
    for row in relevant:
        row[RNG.choice(m, labels, replace=False)] = True
    relevant[:, 0] = False  # a class without a picture
    weights = 0.5 + RNG.random(m)
    random = [map100.map_at_100(RNG.random((n, m)).astype(np.float32), relevant, reading, weights) for _ in range(60)]
    assert np.mean(random) == pytest.approx(map100.map_chance(relevant, reading, weights), rel=0.03)
    ceiling = map100.map_ceiling(relevant, reading, weights)
    perfect = relevant + 0.0001 * np.arange(m, 0, -1)  # what is wrong goes to the same few classes
    reached = map100.map_at_100(perfect.astype(np.float32), relevant, reading, weights)
    assert reached <= ceiling + 1e-12
    if reading == "by_class":
        assert reached == pytest.approx(ceiling)
    else:
        assert reached > ceiling - weights.max() / m


def test_the_ceiling_of_map_by_image_holds_for_every_ranking() -> None:
    """All rankings of three labels for three pictures: none is above the bound, one meets it."""
    relevant = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    orders = [np.array(o) for o in itertools.permutations([2.0, 1.0, 0.0])]
    reached = [
        map100.map_at_100(np.stack(rows).astype(np.float32), relevant, "by_image")
        for rows in itertools.product(orders, repeat=3)
    ]
    ceiling = map100.map_ceiling(relevant, "by_image")
    assert max(reached) == pytest.approx(ceiling)


@pytest.mark.parametrize("reading", ["by_class", "by_image"])
def test_equal_scores_count_against_us(reading: str) -> None:
    """A label without a vector has the same score for every picture, and two with one vector have each other's."""
    relevant = np.zeros((300, 3), bool)
    relevant[:150, 0] = relevant[150:, 1] = True
    matrix = np.zeros((300, 3), np.float32)
    found = map100.precision_at_100(matrix, relevant, reading)
    if reading == "by_class":
        assert found.tolist() == [0.0, 0.0, 0.0], "150 wrong pictures are before the first right one"
    else:
        # k = 1 and 2 list wrong labels only, k = 3 and more (98 of 100) list all three on every picture.
        np.testing.assert_allclose(found, [0.98 / 2, 0.98 / 2, 0.0])
    barely = matrix.copy()
    barely[:150, 0] = barely[150:, 1] = np.finfo(np.float32).tiny
    assert (map100.precision_at_100(barely, relevant, reading)[:2] > found[:2]).all(), "above, by however little"
