"""The gradient between two pushes: brought to its place by a backward, summed over steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from psdevise.server.check import FINITE
from psdevise.server.layout import Dense, Layout
from psdevise.worker.replica import Replica, named_layout, values


class TwoPaths(nn.Module):
    """A parameter that only some steps reach, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.always = nn.Linear(3, 2)
        self.sometimes = nn.Parameter(torch.ones(2))
        self.never = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, both: bool) -> Tensor:
        found = self.always(x)
        return ((found * self.sometimes if both else found) ** 2).sum()


def pair() -> tuple[Replica, TwoPaths, TwoPaths]:
    """A replica with its module, and the same module by itself."""
    torch.manual_seed(0)
    module = TwoPaths()
    alone = TwoPaths()
    alone.load_state_dict(module.state_dict())
    dense, _ = named_layout(module)
    replica = Replica(Layout(dense=dense))
    first = values(module)
    replica.bind(module)
    replica.fetched.copy_(torch.from_numpy(replica.layout.flatten(first)))
    return replica, module, alone


def gradients(module: nn.Module, layout: Layout) -> np.ndarray:
    parts = dict(module.named_parameters())
    found = [(parts[p.name], parts[p.name].grad) for p in layout.dense]
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in found]).detach().numpy()


@pytest.mark.parametrize("paths", [(True,), (False,), (False, True), (True, False, True), (False, False)])
def test_a_push_holds_the_sum_of_its_steps(paths: tuple[bool, ...]) -> None:
    replica, module, alone = pair()
    for _ in range(2):  # the second time in memory that comes back
        for number, both in enumerate(paths):
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
            replica.open_gradient()
            with replica.taking():
                module(x, both).backward()
            replica.close_gradient()
            alone(x, both).backward()
            assert all(p.grad is None for p in module.parameters())
        taken = replica.take_gradient()
        assert taken is not None
        np.testing.assert_allclose(taken, gradients(alone, replica.layout), rtol=1e-6)
        replica.give_back(taken)
        alone.zero_grad()


def test_what_is_accrued_is_there_between_steps() -> None:
    replica, module, alone = pair()
    assert replica.accrued is None
    for number in range(2):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
        replica.open_gradient()
        with replica.taking():
            module(x, False).backward()
        replica.close_gradient()
        alone(x, False).backward()
        assert replica.accrued is not None
        np.testing.assert_allclose(replica.accrued.numpy(), gradients(alone, replica.layout), rtol=1e-6)
    replica.take_gradient()
    assert replica.accrued is None


class Linears(nn.Module):
    """Linear layers in all the ways that a loss may use them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.bare = nn.Linear(8, 8, bias=False)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.bare.weight
        self.own = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))  # [a, b, 6]: more than two dimensions
        h = torch.tanh(self.bare(torch.tanh(self.bare(h))))  # one weight, twice
        h = self.tied(h)  # and under a third name
        return self.own(h).sum() + torch.nn.functional.linear(h, self.own.weight).square().mean()  # not as a layer


def test_linear_layers_bring_their_gradients_however_a_loss_uses_them() -> None:
    torch.manual_seed(0)
    module, alone = Linears(), Linears()
    alone.load_state_dict(module.state_dict())
    dense, _ = named_layout(module)
    replica = Replica(Layout(dense=dense))
    first = replica.layout.flatten(values(module))
    replica.bind(module)
    replica.fetched.copy_(torch.from_numpy(first))
    for number in range(3):
        x = torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(number))
        replica.open_gradient()
        with replica.taking():
            module(x).backward()
        replica.close_gradient()
        alone(x).backward()
    assert all(p.grad is None for p in module.parameters())
    np.testing.assert_allclose(replica.take_gradient(), gradients(alone, replica.layout), rtol=2e-6, atol=1e-6)


def test_a_gradient_that_a_loss_asks_for_itself_is_not_pushed() -> None:
    """A penalty on the gradient by the pictures, and the loss's gradients by its weights, as in plain PyTorch."""
    torch.manual_seed(0)
    module, alone = Linears(), Linears()
    alone.load_state_dict(module.state_dict())
    replica = Replica(Layout(dense=named_layout(module)[0]))
    first = replica.layout.flatten(values(module))
    replica.bind(module)
    replica.fetched.copy_(torch.from_numpy(first))

    def penalised(m: nn.Module) -> Tensor:
        x = torch.ones(2, 6, requires_grad=True)
        loss = m(x)
        (by_x,) = torch.autograd.grad(loss, x, create_graph=True)
        by_weights = torch.autograd.grad(loss, list(m.parameters()), retain_graph=True)
        return loss + by_x.square().sum() + float(by_weights[0].sum())

    replica.open_gradient()
    loss = penalised(module)
    with replica.taking():
        loss.backward()
    replica.close_gradient()
    reference = penalised(alone)
    assert torch.equal(loss, reference)
    reference.backward()
    np.testing.assert_allclose(replica.take_gradient(), gradients(alone, replica.layout), rtol=2e-6, atol=1e-6)


def test_a_task_without_a_module_fills_the_gradient_anew_in_each_step() -> None:
    replica = Replica(Layout(dense=(Dense("a", (3,)),)))
    pushes = []
    for steps in ((1.0, 2.0), (5.0,)):
        for value in steps:
            replica.open_gradient()
            replica.gradient.fill_(value)
            replica.close_gradient()
        pushes.append(replica.take_gradient())
    assert [p.tolist() for p in pushes if p is not None] == [[3.0] * 3, [5.0] * 3]


def test_what_is_accrued_is_known_to_be_finite_without_a_look_at_it() -> None:
    """The bound holds for each value, over several steps, and is small enough to be of use."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    replica = Replica(Layout(dense=named_layout(module)[0]))
    first = replica.layout.flatten(values(module))
    replica.bind(module)
    replica.fetched.copy_(torch.from_numpy(first))

    def step(x: Tensor) -> None:
        replica.open_gradient()
        with replica.taking():
            (1e3 * module(x).square()).mean().backward()
        replica.close_gradient()

    for _ in range(3):
        step(torch.randn(5, 1, 6))
        assert replica.accrued is not None
        assert replica.accrued.abs().max() <= replica.bound < 1e9
    replica.take_gradient()
    step(torch.zeros(5, 1, 6))
    assert replica.bound < 1e5, "of the steps since the last push"
    step(torch.full((5, 1, 6), float("nan")))
    step(torch.randn(5, 1, 6))
    assert np.isnan(replica.bound)
    replica.take_gradient()
    step(torch.full((5, 1, 6), 1e30))
    assert not replica.bound < FINITE


def test_without_a_module_nothing_is_known_of_a_gradient() -> None:
    replica = Replica(Layout(dense=(Dense("a", (3,)),)))
    replica.open_gradient()
    replica.gradient.fill_(1.0)
    replica.close_gradient()
    assert replica.bound == np.inf


def test_whoever_may_have_changed_a_gradient_takes_what_was_known_of_it() -> None:
    """A task that clips, or adds noise to, what the backward brought."""
    replica, module, _ = pair()
    replica.open_gradient()
    with replica.taking():
        module(torch.ones(5, 3), True).backward()
    replica.close_gradient()
    assert replica.bound < FINITE
    replica.gradient[0] = float("nan")
    assert replica.bound == np.inf
