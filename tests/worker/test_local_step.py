"""A replica's own steps against the formulas in float64, by the layout's groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psdevise.server.layout import Dense, Group, Layout
from psdevise.worker.local_step import LocalStep
from psdevise.worker.replica import LocalSteps, Replica

SIZES = {"plain": 5, "slow": 4, "still": 3}
RATES = {"plain": 1.0, "slow": 0.25, "still": 0.0}


def replica(local_step: LocalSteps) -> Replica:
    layout = Layout(
        dense=tuple(Dense(name, (n,), name) for name, n in SIZES.items()),
        groups={"plain": Group(), "slow": Group(rate=0.25), "still": Group(frozen=True)},
    )
    found = Replica(layout, local_step=local_step)
    found.fetched.copy_(torch.randn(layout.size, generator=torch.Generator().manual_seed(1)))
    if found.accumulators is not None:
        found.accumulators.fill_(0.1)
    return found


@pytest.mark.parametrize("local_step", ["adagrad", "sgd"])
def test_steps_from_what_was_fetched_by_all_that_is_accrued(
    local_step: LocalSteps,
) -> None:
    """Three steps, a push that no fetch follows, and two more steps."""
    found = replica(local_step)
    fetched = found.fetched.clone()
    p, s = found.fetched.double().numpy().copy(), np.full(found.layout.size, 0.1)
    rates = np.concatenate([np.full(SIZES[d.name], RATES[d.name]) for d in found.layout.dense])
    step = LocalStep(found, rate=0.05, eps=1e-10)
    drawn, accrued = np.random.default_rng(0), np.zeros(found.layout.size)

    def expected(schedule: float) -> np.ndarray:
        scale = np.sqrt(s + accrued**2) + 1e-10 if local_step == "adagrad" else 1.0
        return p - 0.05 * schedule * rates * accrued / scale

    step(1.0)
    assert found.arena is found.fetched, "nothing is accrued"
    for number, schedule in enumerate((1.0, 0.5, 0.25, 0.2, 0.1)):
        g = drawn.standard_normal(found.layout.size).astype(np.float32)
        found.open_gradient()
        found.gradient.copy_(torch.from_numpy(g))
        found.close_gradient()
        accrued += g
        step(schedule)
        np.testing.assert_allclose(found.arena.numpy(), expected(schedule), rtol=1e-5, atol=1e-6)
        if number < 3:
            assert torch.equal(found.fetched, fetched)
        if number == 2:
            step.keep(schedule)
            p, s, accrued = expected(schedule), s + accrued**2, np.zeros_like(accrued)
            found.take_gradient()
            step(schedule)
            np.testing.assert_allclose(found.arena.numpy(), p, rtol=1e-5, atol=1e-6)
