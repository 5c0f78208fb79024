"""What the last layer costs, k wide and as wide as there are labels (Chollet 2016, section 1)."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

WIDTH = 2048  # of the features, as in the paper's Inception v3
BATCH = 128
LABELS_OF_A_PICTURE = 10
STEPS = 7


class Cost(NamedTuple):
    """Bytes of weights, gradient and Adagrad's accumulator; median seconds of a step on one thread, the core apart."""

    outputs: int
    labels: int
    bytes: int
    seconds: float


def measure(k: int | None, labels: int, seed: int = 0) -> Cost:
    """One step on random features: k outputs regressed on sums of label vectors, or (None) a logistic per label."""
    rng = torch.Generator().manual_seed(seed)
    outputs = labels if k is None else k
    layer = torch.nn.Linear(WIDTH, outputs)
    optimizer = torch.optim.Adagrad(layer.parameters(), lr=0.01)
    values = torch.randn(BATCH, WIDTH, generator=rng)
    listed = torch.randint(labels, (BATCH, LABELS_OF_A_PICTURE), generator=rng)
    vectors = None if k is None else torch.randn(labels, k, generator=rng)
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        optimizer.zero_grad()
        if vectors is None:
            true = torch.zeros(BATCH, labels).scatter_(1, listed, 1.0)
            loss = F.binary_cross_entropy_with_logits(layer(values), true, reduction="sum") / BATCH
        else:
            loss = -F.cosine_similarity(layer(values), vectors[listed].sum(dim=1)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return Cost(outputs, labels, 3 * 4 * (WIDTH + 1) * outputs, float(np.median(seconds[2:])))
