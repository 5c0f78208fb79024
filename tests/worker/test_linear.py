"""A bound module's gradients are those of plain PyTorch, whatever a user's module or loss does with linear layers."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from psdevise.server.layout import Layout
from psdevise.worker.replica import Replica, named_layout, values


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3), nn.ReLU(inplace=True))


def bound(module: nn.Module) -> Replica:
    replica = Replica(Layout(dense=named_layout(module)[0]))
    first = replica.layout.flatten(values(module))
    replica.bind(module)
    replica.fetched.copy_(torch.from_numpy(first))
    return replica


def loss_of(*shape: int) -> Callable[[nn.Module], Tensor]:
    return lambda module: module(torch.randn(*shape)).square().sum()


def penalised(module: nn.Module) -> Tensor:
    """Gradients per example, by torch.func."""
    x = torch.randn(4, 6)
    by_x = torch.func.vmap(torch.func.grad(lambda row: module(row).sum()))(x)
    return module(x).sum() + by_x.square().sum()


def along(module: nn.Module) -> Tensor:
    """A derivative along a direction, forward."""
    x = torch.randn(4, 6)
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(module(forward_ad.make_dual(x, torch.ones(4, 6)))).tangent.square().sum()


def with_weights_of(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], Tensor]:
    def loss(module: nn.Module) -> Tensor:
        other = {name: change(p) for name, p in module.named_parameters()}
        return functional_call(module, other, (torch.randn(4, 6),)).square().sum()

    return loss


def in_two_parts(module: nn.Module) -> Tensor:
    """A loss that brings a part of its gradient by itself, and only to one layer."""
    module[2](torch.randn(4, 8)).square().sum().backward()
    return module[0](torch.randn(4, 6)).sum()


def dropped(module: nn.Module) -> Tensor:
    """A backward whose gradients are thrown away, as for an adversarial example."""
    module(torch.randn(4, 6)).square().sum().backward()
    for parameter in module.parameters():
        parameter.grad = None
    return module(torch.randn(4, 6)).sum()


def half(module: nn.Module) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return module(torch.randn(4, 6)).float().square().sum()


def switched_off(module: nn.Module) -> Tensor:
    module[0].weight.requires_grad_(False)
    loss = module(torch.randn(4, 6)).square().sum()
    module[0].weight.requires_grad_(True)
    return loss


def implicit(module: nn.Module) -> Tensor:
    """A fixed point whose gradient is solved for by further backwards in a hook (Bai et al. 2019)."""
    layer, x = module[0], torch.randn(4, 6)
    z = x + torch.tanh(0.1 * layer(x))[:, :6]
    start = z.detach().requires_grad_()
    again = x + torch.tanh(0.1 * layer(start))[:, :6]

    def solve(gradient: Tensor) -> Tensor:
        y = gradient
        for _ in range(5):
            y = torch.autograd.grad(again, start, y, retain_graph=True)[0] + gradient
        torch.autograd.grad(again, layer.weight, y, retain_graph=True)
        return y

    z.register_hook(solve)
    return z.square().sum() + module(torch.randn(2, 6)).sum()


def masked() -> nn.Module:
    module = net()
    module[0].weight.register_hook(lambda g: g * 0.5)
    return module


def masked_bias() -> nn.Module:
    module = net()
    module[0].bias.register_hook(lambda g: g * 0.5)
    return module


def one_bias() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    module[2].bias = module[0].bias
    return module


def masked_late(module: nn.Module) -> Tensor:
    """By hooks that come behind the forward; with each step one more."""
    found = module(torch.randn(4, 6)).square().sum()
    for parameter in (module[0].weight, module[0].bias):
        parameter.register_hook(lambda g: g * 0.5)
    return found


def clipped() -> nn.Module:
    def clip(p: Tensor) -> None:
        p.grad.clamp_(-0.01, 0.01)

    module = net()
    module[0].weight.register_post_accumulate_grad_hook(clip)
    return module


def adapted() -> nn.Module:
    module = net()
    before = module[0].forward
    module[0].forward = lambda x: 3 * before(x)
    return module


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "two dimensions": (net, loss_of(4, 6)),
    "one, and changed in place": (net, loss_of(6)),
    "three, and changed in place": (net, loss_of(4, 5, 6)),
    "not contiguous": (net, lambda m: m(torch.randn(5, 6, 4).transpose(1, 2)).square().sum()),
    "no rows": (net, loss_of(0, 6)),
    "expanded": (net, lambda m: m(torch.randn(1, 6).expand(4, 6)).sum()),
    "sparse": (net, lambda m: m(torch.randn(4, 6).to_sparse()).square().sum()),
    "by name": (lambda: nn.Linear(6, 3), lambda m: m(input=torch.randn(4, 6)).square().sum()),
    "autocast": (net, half),
    "gradients of examples": (net, penalised),
    "derivatives forward": (net, along),
    "other weights": (net, with_weights_of(lambda p: 2 * p)),
    "backward in the loss": (net, in_two_parts),
    "backward in the loss, thrown away": (net, dropped),
    "switched off": (net, switched_off),
    "implicit": (net, implicit),
    "hook on the weight": (masked, loss_of(4, 6)),
    "hook on the bias": (masked_bias, loss_of(4, 6)),
    "hooks behind the forward": (net, masked_late),
    "hook on the sum": (clipped, loss_of(4, 6)),
    "one bias of two layers": (one_bias, loss_of(4, 6)),
    "a forward of its own": (adapted, loss_of(4, 6)),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Linear(6, 3))), loss_of(4, 6)),
    "attention": (lambda: nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True), loss_of(4, 5, 6)),
    "checkpoint": (net, lambda m: checkpoint(m, torch.randn(4, 6), use_reentrant=False).square().sum()),
    "checkpoint, the old way": (
        net,
        lambda m: checkpoint(m, torch.randn(4, 6, requires_grad=True), use_reentrant=True).square().sum(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_pytorch(case: str) -> None:
    make, loss = CASES[case]
    torch.manual_seed(0)
    module, alone = make(), make()
    alone.load_state_dict(module.state_dict())
    replica, parts = bound(module), dict(alone.named_parameters())
    wanted = np.zeros(replica.layout.size)
    for seed in range(2):
        torch.manual_seed(seed)
        replica.open_gradient()
        found = loss(module)
        with replica.taking():
            found.backward()
        replica.close_gradient()
        torch.manual_seed(seed)
        loss(alone).backward()
        each = [parts[p.name].grad for p in replica.layout.dense]
        named = {p.name: np.zeros(p.shape) if g is None else g for p, g in zip(replica.layout.dense, each, strict=True)}
        wanted += replica.layout.flatten(named)
        alone.zero_grad()
    assert all(p.grad is None for p in module.parameters())
    bound_before, taken = replica.bound, replica.take_gradient()
    np.testing.assert_allclose(taken, wanted, rtol=1e-5, atol=1e-5)
    assert taken is not None
    assert np.abs(taken).max() <= bound_before * (1 + 1e-6)


def test_a_task_may_do_its_backward_by_itself() -> None:
    module = net()
    replica = bound(module)
    replica.open_gradient()
    module(torch.randn(4, 6)).square().sum().backward()
    own = replica.layout.flatten({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
    replica.close_gradient()
    np.testing.assert_array_equal(replica.take_gradient(), own)


def test_a_copy_of_a_bound_module_is_one_of_its_own() -> None:
    """As a teacher is made of a pupil, and as modules are saved."""

    def saved(module: nn.Module) -> Any:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    module = net()
    replica = bound(module)
    x = torch.randn(4, 6)
    for copied in (copy.deepcopy(module), saved(module), copy.deepcopy(copy.deepcopy(module))):
        assert torch.equal(copied(x), module(x))
        replica.open_gradient()
        with replica.taking():
            copied(x).sum().backward()
        replica.close_gradient()
        assert replica.accrued is not None
        assert not replica.accrued.any()
        assert all(p.grad is not None for p in copied.parameters())
        replica.take_gradient()
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        assert not copied(x).any()
        assert module(x).any()
        bound(copied)
        assert type(copied[0].forward) is type(module[0].forward), "and may be bound itself"


def test_a_layer_that_is_bound_again_brings_its_gradient_to_the_last() -> None:
    module = nn.Linear(6, 3)
    first, second = bound(module), bound(module)
    for replica in (first, second):
        replica.open_gradient()
    with second.taking():
        module(torch.randn(4, 6)).sum().backward()
    for replica in (first, second):
        replica.close_gradient()
    found = first.take_gradient(), second.take_gradient()
    assert [bool(np.any(gradient)) for gradient in found] == [False, True]


def test_a_backward_that_keeps_its_graph_leaves_none_in_what_is_pushed() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    alone = copy.deepcopy(module)
    replica, x = bound(module), torch.randn(4, 6)
    for _ in range(2):  # pushes
        for _ in range(2):
            replica.open_gradient()
            with replica.taking():
                module(x).square().sum().backward(create_graph=True)
            replica.close_gradient()
        assert not replica.gradient.requires_grad
        taken = replica.take_gradient()
        assert taken is not None
        replica.give_back(taken)
    alone(x).square().sum().backward()
    wanted = replica.layout.flatten({n: p.grad for n, p in alone.named_parameters()})
    np.testing.assert_allclose(taken, 2 * wanted, rtol=1e-5, atol=1e-6)
