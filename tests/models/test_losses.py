"""Losses and their gradients against the formula, written out in plain Python and float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.models import losses

MARGIN = 0.1


def problem(
    seed: int, pictures: int = 5, terms: int = 7, dim: int = 4
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(terms, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    true = np.zeros((pictures, terms), dtype=bool)
    for row in true:
        row[random.choice(terms, size=random.integers(1, 4), replace=False)] = True
    projected = random.normal(size=(pictures, dim)) * 0.3
    return (
        torch.tensor(projected, dtype=torch.float32, requires_grad=True),
        torch.tensor(vectors, dtype=torch.float32),
        torch.tensor(true),
    )


def orders(generator: torch.Generator, hinges: int, terms: int) -> list[list[int]]:
    """The visiting order of each hinge, from the same draws as the loss: highest key first."""
    keys = torch.rand((hinges, terms), generator=generator)
    return [sorted(range(terms), key=lambda j: -row[j]) for row in keys.tolist()]


def by_hand(
    projected: list[list[float]],
    vectors: list[list[float]],
    true: list[list[bool]],
    order: list[list[int]],
    cut: bool,
) -> tuple[float, list[list[float]]]:
    """Equation 1 and its gradient with respect to the projected pictures, term by term."""
    total, gradient = 0.0, [[0.0] * len(x) for x in projected]
    hinge = 0
    for b, x in enumerate(projected):
        for t in (j for j in range(len(vectors)) if true[b][j]):
            for j in order[hinge]:
                if true[b][j]:
                    continue
                t_x = math.fsum(v * w for v, w in zip(vectors[t], x, strict=True))
                j_x = math.fsum(v * w for v, w in zip(vectors[j], x, strict=True))
                if MARGIN - t_x + j_x > 0:
                    total += MARGIN - t_x + j_x
                    for e in range(len(x)):
                        gradient[b][e] += vectors[j][e] - vectors[t][e]
                    if cut:
                        break
            hinge += 1
    n = len(projected)
    return total / n, [[g / n for g in row] for row in gradient]


@pytest.mark.parametrize("mode", ["cut", "sum"])
@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_hinge_rank_and_its_gradient_equal_the_formula(mode: str, seed: int) -> None:
    projected, vectors, true = problem(seed)
    generator = torch.Generator().manual_seed(seed)
    order = orders(torch.Generator().manual_seed(seed), int(true.sum()), true.shape[1])
    loss = losses.hinge_rank(projected, vectors, true, generator, MARGIN, mode)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    expected, gradient = by_hand(
        projected.detach().double().tolist(), vectors.double().tolist(), true.tolist(), order, mode == "cut"
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert projected.grad is not None
    np.testing.assert_allclose(projected.grad.numpy(), gradient, rtol=1e-5, atol=1e-6)


def test_gradient_reaches_projection_and_label_vectors() -> None:
    """By central differences in float64: M and the vectors both learn (the paper's footnote 5)."""
    _, vectors, true = problem(3)
    random = torch.Generator().manual_seed(3)
    features = torch.randn(5, 6, generator=random, dtype=torch.float64)
    m = (torch.randn(6, 4, generator=random, dtype=torch.float64) * 0.3).requires_grad_()
    v = vectors.double().requires_grad_()

    def full(m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:  # the library's, at float64
        scores = features @ m @ v.T
        picture, term = true.nonzero(as_tuple=True)
        hinge = (MARGIN - scores[picture, term][:, None] + scores[picture]).clamp_min(0)
        return hinge.masked_fill(true[picture], 0).sum() / 5

    ours = losses.hinge_rank((features @ m).float(), v.float(), true, random, MARGIN, "sum")
    expected = torch.autograd.grad(full(m, v), (m, v))
    for got, want in zip(torch.autograd.grad(ours, (m, v)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert torch.autograd.gradcheck(full, (m, v))


def test_the_first_violation_is_drawn_uniformly_and_anew() -> None:
    """9 false terms violate; over many draws each is first equally often (chi-square, 8 degrees)."""
    terms, repeats = 10, 9000
    vectors = torch.eye(terms)
    projected = torch.zeros(repeats, terms, requires_grad=True)
    true = torch.zeros(repeats, terms, dtype=torch.bool)
    true[:, 0] = True
    losses.hinge_rank(projected, vectors, true, torch.Generator().manual_seed(1)).backward()  # type: ignore[no-untyped-call]
    assert projected.grad is not None
    drawn = (projected.grad * repeats).round()
    assert (drawn[:, 0] == -1).all()
    assert (drawn[:, 1:].sum(dim=1) == 1).all()  # exactly one false term per picture
    count = drawn[:, 1:].sum(dim=0).numpy()
    expected = repeats / (terms - 1)
    assert ((count - expected) ** 2 / expected).sum() < 26.1  # P = .001
    first = drawn[:, 1:].argmax(dim=1)
    together = np.histogram2d(first[0::2], first[1::2], bins=terms - 1)[0]  # neighbours are independent
    assert ((together - 4500 / 81) ** 2 / (4500 / 81)).sum() < 132  # 80 degrees of freedom, P = .0002


def test_only_violating_terms_are_first() -> None:
    vectors = torch.eye(3)
    projected = torch.tensor([[0.5, 0.45, 0.0]]).repeat(200, 1).requires_grad_()
    true = torch.tensor([[True, False, False]]).repeat(200, 1)
    loss = losses.hinge_rank(projected, vectors, true, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.05, abs=1e-6)  # term 1 violates by .05, term 2 never


def test_no_violation_no_loss_and_a_true_term_is_never_false() -> None:
    vectors = torch.eye(3)
    projected = torch.tensor([[1.0, 0.99, 0.0]], requires_grad=True)
    true = torch.tensor([[True, True, False]])
    for mode in ("cut", "sum"):
        loss = losses.hinge_rank(projected, vectors, true, torch.Generator(), mode=mode)
        assert loss.item() == 0
        loss.backward()  # type: ignore[no-untyped-call]
    assert projected.grad is not None
    assert projected.grad.abs().sum() == 0


def test_hinge_rank_of_bf16_projections_is_fp32() -> None:
    projected, vectors, true = problem(1)
    loss = losses.hinge_rank(projected.bfloat16(), vectors, true, torch.Generator())
    assert loss.dtype == torch.float32


def test_squared_distance_is_the_mean_over_pictures() -> None:
    projected, vectors, true = problem(5)
    x, v = projected.detach().double().numpy(), vectors.double().numpy()
    pairs = zip(*true.numpy().nonzero(), strict=True)
    expected = sum(float(((x[b] - v[t]) ** 2).sum()) for b, t in pairs) / len(x)
    assert losses.squared_distance(projected, vectors, true).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_one_label_is_torchs(smoothing: float) -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    true = torch.nn.functional.one_hot(labels, 5).bool()
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(losses.cross_entropy(logits, true, smoothing), expected)


def test_cross_entropy_of_several_labels_and_of_none() -> None:
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    true = torch.tensor([[True, False, True, False], [False] * 4])
    log_p = logits.double().log_softmax(dim=1)
    expected = -(log_p[0, 0] + log_p[0, 2]) / 2 / 2
    assert losses.cross_entropy(logits, true, 0.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.cross_entropy(logits[1:], true[1:], 0.1).item() == 0
