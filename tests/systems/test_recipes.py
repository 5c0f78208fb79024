"""Each system's own loss, gradient or closed form against a float64 reference, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psdevise.errors import LabelError
from psdevise.phases.joint import ProjectionOptions
from psdevise.server.optimizer import OptimizerOptions
from psdevise.systems.cosine import CosineHead, CosineSoftmax
from psdevise.systems.cosine import _loss as cosine_loss
from psdevise.systems.devise import Devise, Ridge, l2, random, ridge
from psdevise.systems.finished import Finished
from psdevise.systems.linear import ConSE, SoftmaxHead, convex_combination
from psdevise.systems.recipe import columns
from psdevise.systems.wsabie import Wsabie, WsabieHead, rank_weights, warp
from tests.systems.lessons import SEEN, UNSEEN, known, lesson, pictures

QUICK = ProjectionOptions(epochs=20, batch=32, slices=20, optimizer=OptimizerOptions(rate=0.1))


def test_ridge_solves_its_normal_equations() -> None:
    rng = np.random.default_rng(0)
    values, targets = rng.standard_normal((50, 7)).astype(np.float32), rng.standard_normal((50, 3)).astype(np.float32)
    found = ridge(values, targets, 0.3)
    v, t = values.astype(np.float64), targets.astype(np.float64)
    # Augmented least squares: √(λ n s) rows of the identity.
    penalty = 0.3 * (v**2).sum() / v.shape[1]
    wanted = np.linalg.lstsq(
        np.vstack([v, np.sqrt(penalty) * np.eye(7)]), np.vstack([t, np.zeros((7, 3))]), rcond=None
    )[0].T
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_convex_combination_is_the_papers_formula() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(6), 4).astype(np.float32)
    vectors = rng.standard_normal((6, 3)).astype(np.float32)
    for row, found in zip(p, convex_combination(p, vectors, 3), strict=True):
        best = sorted(range(6), key=lambda i: -row[i])[:3]
        wanted = sum(float(row[i]) * vectors[i].astype(np.float64) for i in best) / sum(float(row[i]) for i in best)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(convex_combination(p, vectors, 99), p @ vectors, rtol=1e-5)


def test_cosine_loss_and_gradient_against_float64() -> None:
    rng = np.random.default_rng(0)
    values, vectors = rng.standard_normal((4, 6)), rng.standard_normal((3, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    true = np.eye(3, dtype=bool)[[0, 2, 1, 2]]
    torch.manual_seed(0)
    head = CosineHead(6, 5)
    torch.nn.init.normal_(head.map.weight)
    weight, scale = head.map.weight.detach().double().numpy(), float(head.log_scale.detach())

    def reference(w: np.ndarray, s: float) -> float:
        x = values @ w.T
        logits = np.exp(s) * (x / np.linalg.norm(x, axis=1, keepdims=True)) @ vectors.T
        logits -= logits.max(axis=1, keepdims=True)
        return float(-(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[true].mean())

    batch = torch.from_numpy(values).float(), torch.from_numpy(true)
    value, _ = cosine_loss(head, batch, np.random.default_rng(0), torch.from_numpy(vectors).float())
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(reference(weight, scale), rel=1e-5)
    step = 1e-6
    up, down = weight.copy(), weight.copy()
    up[1, 2] += step
    down[1, 2] -= step
    slope = (reference(up, scale) - reference(down, scale)) / (2 * step)
    assert float(head.map.weight.grad[1, 2]) == pytest.approx(slope, rel=1e-3, abs=1e-6)  # type: ignore[index]
    slope = (reference(weight, scale + step) - reference(weight, scale - step)) / (2 * step)
    assert float(head.log_scale.grad[0]) == pytest.approx(slope, rel=1e-3)  # type: ignore[index]


def test_the_temperature_is_bounded() -> None:
    head = CosineHead(6, 5)
    with torch.no_grad():
        head.log_scale.fill_(20.0)
    assert head(torch.randn(3, 6)).norm(dim=1).allclose(torch.tensor(100.0))


def test_rank_weights_are_partial_harmonic_sums() -> None:
    wanted = [sum(1 / i for i in range(1, r + 1)) for r in range(6)]
    np.testing.assert_allclose(rank_weights(5).numpy(), wanted)
    np.testing.assert_allclose(rank_weights(3, "log").numpy(), np.log([1, 2, 3, 4]))


@pytest.mark.parametrize("violators", [1, 3, 9])
def test_warps_weight_has_the_expectation_of_its_geometric_draws(violators: int) -> None:
    """N is geometric with p = violators / (Y−1), cut after Y−1 draws; every violator's hinge is 2."""
    labels, copies = 10, 20_000
    scores = torch.zeros(copies, labels)
    scores[:, 0] = 1.0
    scores[:, 1:] = -3.0
    scores[:, 1 : 1 + violators] = 2.0  # 1 − 1 + 2
    true = torch.zeros(copies, labels, dtype=torch.bool)
    true[:, 0] = True
    found = float(warp(scores, true, torch.Generator().manual_seed(0)))
    p, draws = violators / 9, 9
    weight = [sum(1 / i for i in range(1, draws // n + 1)) for n in range(1, draws + 1)]
    chance = [p * (1 - p) ** (n - 1) for n in range(1, draws + 1)]
    mean = 2 * sum(w * c for w, c in zip(weight, chance, strict=True))
    deviation = np.sqrt(sum(c * (2 * w) ** 2 for w, c in zip(weight, chance, strict=True)) - mean**2)
    assert abs(found - mean) <= 4 * deviation / np.sqrt(copies) + 1e-4


def test_warps_gradient_is_its_weight_on_the_two_labels_that_took_part() -> None:
    scores = torch.tensor([[1.0, 0.5, -9.0]], requires_grad=True)
    true = torch.tensor([[True, False, False]])
    # Only label 1 violates the margin (hinge .5). Drawn at first: rank ⌊2/1⌋ = 2, weight 1.5; second: weight 1.
    seen = set()
    for seed in range(40):
        scores.grad = None
        value = warp(scores, true, torch.Generator().manual_seed(seed))
        value.backward()  # type: ignore[no-untyped-call]
        assert scores.grad is not None
        weight = round(float(value.detach()) / 0.5, 5)
        np.testing.assert_allclose(scores.grad.numpy(), [[-weight, weight, 0.0]], atol=1e-6)
        seen.add(weight)
    assert seen == {0.0, 1.0, 1.5}, "never drawn, drawn at the second, drawn at the first"


def test_warp_never_takes_another_true_label_for_a_false_one() -> None:
    scores = torch.tensor([[0.0, 50.0, -50.0]])
    true = torch.tensor([[True, True, False]])
    assert float(warp(scores, true, torch.Generator().manual_seed(0))) == 0.0
    assert float(warp(scores, torch.ones(1, 3, dtype=torch.bool), torch.Generator())) == 0.0, "no false label at all"


def test_wsabie_keeps_its_norms() -> None:
    torch.manual_seed(0)
    head = WsabieHead(6, 4, 3, bound=0.5)
    with torch.no_grad():
        head.map.mul_(1000)
        head.labels.mul_(1000)
    values = torch.eye(6)
    assert head(values).abs().max() <= 0.25 + 1e-6, "|w · V x| ≤ C²"


def test_wsabies_fitted_map_and_vectors_are_within_the_bound(tmp_path: Path) -> None:
    small = lesson(tmp_path)
    learned = Wsabie(dim=8, bound=0.6, options=replace(QUICK, epochs=5)).fit(small)
    norms = {name: np.linalg.norm(learned[name].astype(np.float64), axis=1) for name in ("map", "labels")}
    assert learned["map"].shape == (12, 8)
    assert learned["labels"].shape == (len(SEEN), 8)
    for name, found in norms.items():
        assert found.max() <= 0.6 + 1e-6, f"‖row‖ of {name}"
    assert norms["labels"].max() > 0.6 - 1e-4, "the bound holds something back"


@pytest.mark.parametrize(
    "recipe",
    [
        Devise(options=replace(Devise().options, projection=QUICK)),
        replace(random(), options=replace(Devise().options, projection=QUICK)),
        replace(l2(), options=replace(l2().options, projection=QUICK)),
        Ridge(),
        SoftmaxHead(QUICK),
        CosineSoftmax(QUICK),
        Wsabie(dim=8, options=QUICK),
        Wsabie(dim=8, options=QUICK, rank_weight="log"),
    ],
    ids=lambda recipe: f"{recipe.name} {recipe.variant}",
)
def test_each_system_learns_what_it_can_name(recipe: Any, tmp_path: Path) -> None:
    given = lesson(tmp_path)
    learned = recipe.fit(given)
    labels = list(SEEN) * 20
    scores = recipe.score(learned, given.known, pictures(labels, 9), SEEN)
    assert scores.shape == (120, 6)
    assert (np.array(SEEN)[scores.argmax(axis=1)] == labels).mean() > 0.9
    new = recipe.score(learned, given.known, pictures(list(UNSEEN) * 20, 9), UNSEEN)
    right = (np.array(UNSEEN)[new.argmax(axis=1)] == list(UNSEEN) * 20).mean()
    if recipe.name in ("softmax", "wsabie"):
        assert np.isneginf(new).all(), "it cannot name what it has not seen"
    elif recipe.name in ("devise", "l2"):  # a softmax among seen labels says less about where the others lie
        assert right > 0.9


def test_conse_needs_softmax_and_no_training(tmp_path: Path) -> None:
    given = lesson(tmp_path)
    softmax = SoftmaxHead(QUICK).fit(given)
    given = replace(given, fitted={"softmax": softmax})
    conse = ConSE(top=3)
    assert conse.needs == ("softmax",)
    assert conse.fit(given) is softmax
    scores = conse.score(softmax, given.known, pictures(list(SEEN) * 10, 9), SEEN)
    assert (scores.argmax(axis=1) == list(range(6)) * 10).mean() > 0.9
    assert np.abs(scores).max() <= 1 + 1e-5


def test_columns_and_finished_say_what_cannot_be_named() -> None:
    found = columns(np.array([[1.0, 2.0]]), ("a", "b"), ("b", "x", "a"))
    np.testing.assert_array_equal(found, np.array([[2.0, -np.inf, 1.0]], np.float32))
    finished = Finished(Ridge(), {"projection.weight": np.eye(5, 12, dtype=np.float32)}, known(), lambda p: p)  # type: ignore[arg-type,return-value]
    with pytest.raises(LabelError, match="unheard of"):
        finished.score_values(np.zeros((1, 12), np.float32), ("unheard of",))
