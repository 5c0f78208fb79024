"""AlexNet without its softmax layer (Krizhevsky, Sutskever and Hinton, NIPS 2012), for 224, 64 and 32 px.

At 224 px it is the paper's net, with the two towers of its two GPUs as grouped convolutions: with the paper's
1,000-way softmax on top it has 60,965,224 parameters. The forms for 64 and 32 px keep what is typical of
it (large first kernels, local response normalisation, overlapping pooling, dropout, no batch norm) at a
size that small pictures and a CPU can bear.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + α Σ_{|j-i| ≤ n/2} a_j²)^β with k = 2, n = 5, α = 1e-4, β = .75 (section 3.3).

    Equals `nn.LocalResponseNorm(5, alpha=5e-4, beta=.75, k=2)`, which divides its α by n. The sum over
    neighbouring channels is a 1×1 convolution with a band matrix, and x^(-3/4) is made of square roots:
    on a CPU that is several times as fast as torch's pooling in a fifth dimension and its `pow`.

    Shapes: float [B, channels, H, W] → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        i = torch.arange(channels)
        band = ((i[:, None] - i[None, :]).abs() <= 2).float()[:, :, None, None]
        self.register_buffer("band", band, persistent=False)  # a constant: not part of the weights

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        band = self.get_buffer("band")
        root = (2.0 + 1e-4 * F.conv2d(a * a, band.to(a.dtype))).rsqrt()
        return a * (root * root.sqrt())


class AlexNet(nn.Module):
    """Convolutions, then two dense layers. Shapes: float [B, 3, size, size] → [B, features].

    `features` is 4,096 at 224 px and 512 below.
    """

    def __init__(self, size: Literal[224, 64, 32], dropout: float = 0.5) -> None:
        super().__init__()
        self.features = 4096 if size == 224 else 512
        convolutions, flat = _paper() if size == 224 else _reduced(stride=size // 32)
        self.convolutions = nn.Sequential(*convolutions)
        top: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise((flat, self.features, self.features)):
            top += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.top = nn.Sequential(*top)
        self.apply(_initialise)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.top(self.convolutions(pictures))
        return embedded


def alexnet(size: Literal[224, 64, 32] = 224, dropout: float = 0.5) -> AlexNet:
    """A new AlexNet core for pictures of `size` px; `dropout` is the share of the top's units left out."""
    return AlexNet(size, dropout)


def _paper() -> tuple[list[nn.Module], int]:
    return [
        nn.Conv2d(3, 96, 11, stride=4, padding=2),  # 224 → 55
        nn.ReLU(inplace=True),
        LocalResponseNorm(96),
        nn.MaxPool2d(3, stride=2),  # → 27
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        LocalResponseNorm(256),
        nn.MaxPool2d(3, stride=2),  # → 13
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),  # → 6
    ], 256 * 6 * 6


def _reduced(stride: int) -> tuple[list[nn.Module], int]:
    return [
        nn.Conv2d(3, 48, 5, stride=stride, padding=2),  # → 32
        nn.ReLU(inplace=True),
        LocalResponseNorm(48),
        nn.MaxPool2d(3, stride=2, padding=1),  # → 16
        nn.Conv2d(48, 96, 5, padding=2),
        nn.ReLU(inplace=True),
        LocalResponseNorm(96),
        nn.MaxPool2d(3, stride=2, padding=1),  # → 8
        nn.Conv2d(96, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),  # → 4
    ], 128 * 4 * 4


def _initialise(module: nn.Module) -> None:
    # He et al. 2015 in place of the paper's N(0, .01²), with which small nets hardly start under Adagrad.
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
