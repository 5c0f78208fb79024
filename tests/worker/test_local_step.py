"""A replica's own steps against the formulas in float64, by the layout's groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psdevise.server.layout import Dense, Group, Layout
from psdevise.worker.local_step import LocalStep
from psdevise.worker.replica import Replica

SIZES = {"plain": 5, "slow": 4, "still": 3}
RATES = {"plain": 1.0, "slow": 0.25, "still": 0.0}


def replica(accumulators: bool) -> Replica:
    layout = Layout(
        dense=tuple(Dense(name, (n,), name) for name, n in SIZES.items()),
        groups={"plain": Group(), "slow": Group(rate=0.25), "still": Group(frozen=True)},
    )
    found = Replica(layout, accumulators=accumulators)
    found.arena.copy_(torch.randn(layout.size, generator=torch.Generator().manual_seed(1)))
    if found.accumulators is not None:
        found.accumulators.fill_(0.1)
    return found


@pytest.mark.parametrize("adagrad", [True, False])
def test_three_steps_are_the_formulas(adagrad: bool) -> None:
    found = replica(adagrad)
    p, s = found.arena.double().numpy().copy(), np.full(found.layout.size, 0.1)
    rates = np.concatenate([np.full(SIZES[d.name], RATES[d.name]) for d in found.layout.dense])
    moves = rates > 0
    step = LocalStep(found, rate=0.05, eps=1e-10)
    drawn = np.random.default_rng(0)
    for schedule in (1.0, 0.5, 0.25):
        g = drawn.standard_normal(found.layout.size).astype(np.float32)
        found.open_gradient()
        found.gradient.copy_(torch.from_numpy(g))
        step(schedule)
        found.close_gradient()
        s[moves] += g[moves].astype(np.float64) ** 2
        p -= 0.05 * schedule * rates * (g / (np.sqrt(s) + 1e-10) if adagrad else g)
    np.testing.assert_allclose(found.arena.numpy(), p, rtol=1e-5, atol=1e-7)
    if found.accumulators is not None:
        np.testing.assert_allclose(found.accumulators.numpy(), s, rtol=1e-5)
