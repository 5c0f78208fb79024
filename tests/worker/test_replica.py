"""The gradient between two pushes: brought to its place by a backward, summed over steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
    for name, (start, stop) in replica.layout.offsets.items():
        replica.arena[start:stop] = torch.from_numpy(first[name].reshape(-1))
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
            module(x, both).backward()
            replica.close_gradient()
            alone(x, both).backward()
            assert all(p.grad is None for p in module.parameters())
        taken = replica.take_gradient()
        assert taken is not None
        np.testing.assert_allclose(taken, gradients(alone, replica.layout), rtol=1e-6)
        replica.give_back(taken)
        alone.zero_grad()


def test_one_steps_own_gradient_is_there_until_it_is_closed() -> None:
    replica, module, alone = pair()
    replica.keeps_own = True
    for number in range(2):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
        replica.open_gradient()
        module(x, False).backward()
        alone.zero_grad()
        alone(x, False).backward()
        own = {p.name: replica.own_gradient(p) for p in replica.layout.dense}
        assert own["never"] is None
        assert own["sometimes"] is None
        weight = own["always.weight"]
        assert weight is not None
        assert alone.always.weight.grad is not None
        np.testing.assert_allclose(weight.numpy(), alone.always.weight.grad.numpy(), rtol=1e-6)
        replica.close_gradient()
        assert replica.own_gradient(replica.layout.dense[0]) is None


def test_a_task_without_a_module_fills_the_gradient_anew_in_each_step() -> None:
    replica = Replica(Layout(dense=(Dense("a", (3,)),)))
    pushes = []
    for steps in ((1.0, 2.0), (5.0,)):
        for value in steps:
            replica.open_gradient()
            replica.gradient.fill_(value)
            own = replica.own_gradient(replica.layout.dense[0])
            assert own is not None
            assert own.tolist() == [value] * 3
            replica.close_gradient()
        pushes.append(replica.take_gradient())
    assert [p.tolist() for p in pushes if p is not None] == [[3.0] * 3, [5.0] * 3]
