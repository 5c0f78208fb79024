from __future__ import annotations

import numpy as np
import pytest
import torch

from psdevise.models.alexnet import AlexNet, LocalResponseNorm, alexnet
from psdevise.models.core import parameters
from psdevise.models.devise import Softmax


def test_lrn_equals_the_formula_in_float64() -> None:
    a = np.random.default_rng(0).normal(size=(2, 7, 3, 4)) * 30
    b = np.empty_like(a)
    for i in range(7):
        window = a[:, max(0, i - 2) : min(7, i + 3)]
        b[:, i] = a[:, i] / (2 + 1e-4 * (window**2).sum(axis=1)) ** 0.75
    got = LocalResponseNorm(7)(torch.from_numpy(a).float())
    np.testing.assert_allclose(got.numpy(), b, rtol=1e-5)


def test_lrn_equals_torchs_and_so_does_its_gradient() -> None:
    a = (torch.randn(2, 9, 5, 5, generator=torch.Generator().manual_seed(0)) * 30).requires_grad_()
    ours, torchs = LocalResponseNorm(9)(a), torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)(a)
    torch.testing.assert_close(ours, torchs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), a)[0] for y in (ours, torchs)))


def test_the_224_form_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        net = Softmax(alexnet(224), 4096, 1000)
        pictures = torch.empty(2, 3, 224, 224)
    layers = [  # kernel side, channels in (of one group), kernels
        (11, 3, 96),
        (5, 48, 256),
        (3, 256, 384),
        (3, 192, 384),
        (3, 192, 256),
        (6, 256, 4096),
        (1, 4096, 4096),
        (1, 4096, 1000),
    ]
    assert sum(side * side * inputs * outputs + outputs for side, inputs, outputs in layers) == 60_965_224
    assert parameters(net) == 60_965_224
    assert net(pictures).shape == (2, 1000)
    assert net.core(pictures).shape == (2, 4096)


@pytest.mark.parametrize("size", [32, 64])
def test_reduced_forms(size: int) -> None:
    core = alexnet(size)  # type: ignore[arg-type]
    assert core(torch.zeros(3, 3, size, size)).shape == (3, core.features) == (3, 512)
    kinds = {type(module).__name__ for module in core.modules()}
    assert {"LocalResponseNorm", "Dropout"} <= kinds
    assert not any("BatchNorm" in kind for kind in kinds)
    assert core.convolutions[0].kernel_size == (5, 5)


def test_lrn_stands_between_relu_and_pooling() -> None:
    names = [type(module).__name__ for module in AlexNet(32).convolutions]
    for i, name in enumerate(names):
        if name == "LocalResponseNorm":
            assert (names[i - 1], names[i + 1]) == ("ReLU", "MaxPool2d")


def test_dropout_only_in_training() -> None:
    core = alexnet(32, dropout=0.5)
    pictures = torch.randn(1, 3, 32, 32)
    core.eval()
    assert torch.equal(core(pictures), core(pictures))
    core.train()
    assert not torch.equal(core(pictures), core(pictures))


def test_weights_hold_no_constants() -> None:
    assert not any("band" in name for name in alexnet(32).state_dict())
