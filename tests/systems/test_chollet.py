"""Chollet 2016 against float64 references: loss, gradient, sums, placing, and both systems on multi-label lessons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from psdevise.compare.training import trainer
from psdevise.data.features import Features, write
from psdevise.systems.chollet import Chollet, Logistic, cosine_proximity, logistic_loss, relevant
from psdevise.systems.recipe import Known, Lesson
from tests.systems.test_recipes import QUICK

RNG = np.random.default_rng(0)
GROUPS = {"ant": "insect", "bee": "insect", "cat": "mammal", "dog": "mammal", "elk": "mammal", "fly": "insect"}
SEEN = ("ant", "bee", "cat", "dog", "elk", "insect", "mammal")
NEW = (("fly", ("insect",)), ("gnu", ("mammal",)))


def pictures(names: list[str], seed: int) -> np.ndarray:
    """Each kind is a direction, and leans on its group's."""
    directions = np.random.default_rng(4).standard_normal((8, 12))
    index = dict(zip([*GROUPS, "gnu"], range(7), strict=True))
    lean = {"insect": np.eye(12)[0] * 4, "mammal": np.eye(12)[1] * 4}
    rows = [directions[index[n]] + lean[GROUPS.get(n, "mammal")] for n in names]
    return (np.array(rows) + 0.1 * np.random.default_rng(seed).standard_normal((len(names), 12))).astype(np.float32)


def lesson(folder: Path, n: int = 400) -> Lesson:
    names = [SEEN[i % 5] for i in range(n)]
    path = str(folder / "train.parquet")
    labels = [(name, GROUPS[name]) for name in names]
    write(path, [Features([str(i) for i in range(n)], pictures(names, 3), labels)], 12)
    return Lesson(Known(SEEN, {}, 0), path, str(folder), trainer(0))


def linear(width: int, dim: int) -> nn.Linear:
    layer = nn.Linear(width, dim)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(RNG.standard_normal((dim, width))))
        layer.bias.copy_(torch.from_numpy(RNG.standard_normal(dim)))
    return layer


def test_cosine_proximity_and_its_gradient_are_those_of_the_formula() -> None:
    layer, vectors = linear(6, 3), RNG.standard_normal((4, 3))
    values, true = RNG.standard_normal((5, 6)), RNG.random((5, 4)) < 0.5
    true[:, 0] = True
    batch = (torch.from_numpy(values).float(), torch.from_numpy(true))
    value, figures = cosine_proximity(layer, batch, RNG, torch.from_numpy(vectors).float())
    value.backward()  # type: ignore[no-untyped-call]
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()

    def loss(weight: np.ndarray) -> float:
        total = 0.0
        for v, row in zip(values.astype(np.float32).astype(np.float64), true, strict=True):
            z, t = weight @ v + bias, sum(vectors[i] for i in np.flatnonzero(row))
            total += 1 - z @ t / np.sqrt((z @ z) * (t @ t))
        return total / 5

    assert float(value.detach()) == pytest.approx(loss(weight), abs=1e-6)
    assert figures == {"examples": 5.0, "loss": pytest.approx(5 * float(value.detach()))}
    assert layer.weight.grad is not None
    for i, j in ((0, 0), (2, 5), (1, 3)):
        step = np.zeros_like(weight)
        step[i, j] = 1e-6
        slope = (loss(weight + step) - loss(weight - step)) / 2e-6
        assert float(layer.weight.grad[i, j]) == pytest.approx(slope, abs=1e-5)


def test_logistic_loss_is_the_formula() -> None:
    layer = linear(6, 4)
    values, true = RNG.standard_normal((5, 6)).astype(np.float32), RNG.random((5, 4)) < 0.5
    value, _ = logistic_loss(layer, (torch.from_numpy(values), torch.from_numpy(true)), RNG)
    logits = values.astype(np.float64) @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    p = 1 / (1 + np.exp(-logits))
    wanted = -np.where(true, np.log(p), np.log(1 - p)).sum() / 5
    assert float(value.detach()) == pytest.approx(wanted, rel=1e-5)
    value.backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    slope = (p - true).T / 5  # ∂/∂logit, labels × pictures
    np.testing.assert_allclose(layer.weight.grad.numpy(), slope @ values.astype(np.float64), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.bias.grad.numpy(), slope.sum(axis=1), rtol=1e-4, atol=1e-6)


def test_related_labels_are_on_every_picture_and_in_every_sum() -> None:
    related = {"ant": ("insect",), "bee": ("insect", "bee")}
    found = relevant([("ant",), ("bee", "cat"), ("unheard of",)], ("ant", "bee", "cat", "insect"), related)
    assert found.astype(int).tolist() == [[1, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    recipe = Chollet(related=tuple(related.items()))
    assert recipe.all_labels(("ant", "bee")) == ("ant", "bee", "insect")
    np.testing.assert_array_equal(recipe.sums(("ant", "bee"), np.eye(3, dtype=np.float32)), [[1, 0, 1], [0, 1, 1]])


def test_both_learn_pictures_of_several_labels(tmp_path: Path) -> None:
    given = lesson(tmp_path)
    names = list(SEEN[:5]) * 20
    values = pictures(names, 9)
    true = relevant([(n, GROUPS[n]) for n in names], SEEN, {})
    for recipe in (
        Chollet(k=5, options=QUICK),
        Chollet(k=0, options=QUICK, variant="one-hot"),
        Logistic(options=QUICK),
        Logistic("zero", QUICK, variant="zero bias"),
    ):
        learned = recipe.fit(given)
        scores = recipe.score(learned, given.known, values, SEEN)
        two_best = np.argsort(-scores, axis=1)[:, :2]
        right = np.take_along_axis(true, two_best, axis=1).mean()
        assert right > 0.9, recipe
        new = recipe.score(learned, given.known, values[:2], ("gnu", "ant"))
        assert np.isneginf(new[:, 0]).all(), "nothing tells where gnu is"
        assert np.isfinite(new[:, 1]).all()


def test_a_new_label_is_placed_by_the_labels_that_it_occurs_with(tmp_path: Path) -> None:
    given = lesson(tmp_path)
    recipe = Chollet(k=5, options=QUICK, related=NEW)  # a sixth eigenvalue is .02: its root divides what is noise
    learned = recipe.fit(given)
    labels = ["fly", "gnu"]
    scores = recipe.score(learned, given.known, pictures(labels * 30, 9), labels)
    assert (scores.argmax(axis=1) == [0, 1] * 30).mean() > 0.95
    # x = Σ^(−1/2) Uᵀ p with p = −log P(insect) at insect, 0 elsewhere
    p = np.zeros(len(SEEN))
    p[SEEN.index("insect")] = -np.log(0.4)
    wanted = (learned["basis"].T @ p)[learned["values"] > 1e-8] / np.sqrt(learned["values"][learned["values"] > 1e-8])
    found = recipe.place(learned, SEEN, [("insect",)])[0]
    np.testing.assert_allclose(found[learned["values"] > 1e-8], wanted, atol=1e-5)


def test_the_embedding_may_come_from_another_annotation_set(tmp_path: Path) -> None:
    given = lesson(tmp_path)
    other = str(tmp_path / "other.parquet")
    write(other, [Features(["0", "1", "2"], np.zeros((3, 12), np.float32), [("ant", "cat"), ("ant",), ("dog",)])], 12)
    own, others = (Chollet(k=3, annotations=a).embedding(given)["labels"] for a in ("", other))
    cos = others[SEEN.index("ant")] @ others[SEEN.index("cat")]
    assert cos > 0.1, "there they are on one picture"
    assert own[SEEN.index("ant")] @ own[SEEN.index("cat")] < cos
    assert (others[SEEN.index("elk")] == 0).all(), "it never occurs there"


def test_the_start_of_the_bias_is_the_log_odds(tmp_path: Path) -> None:
    given = lesson(tmp_path)
    none = replace(QUICK, epochs=0)
    found = Logistic(options=none).fit(given)["bias"]
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), [0.2] * 5 + [0.4, 0.6], atol=1e-6)
    assert (Logistic("zero", none).fit(given)["bias"] == 0).all()
