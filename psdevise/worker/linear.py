"""Gradients of linear layers, made where they will be pushed.

autograd makes a gradient in memory of its own; from there it would be copied to where it is pushed from, and a sum over
steps would be a further pass. Most parameters of the nets that are trained here stand in linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import linear


class Taken(NamedTuple):
    """A parameter's place, in its shape, and whether it holds a sum that is to be added to."""

    into: Tensor
    holds_a_sum: bool


class Place(Protocol):
    """Where the gradients of one layer go."""

    def take(self, of_outputs: Tensor, inputs: Tensor, bias: bool) -> tuple[Taken, Taken | None] | None:
        """The places of the weight's gradient and of the bias's, if there is one; None when no gradient is taken now.

        Args:
            of_outputs: the gradient of the layer's outputs [n, out].
            inputs: its inputs [n, in].
            bias: whether the bias's is brought too.
        """


def bring_gradient(layer: nn.Linear, place: Place) -> None:
    """From now on a backward that is taken brings the gradients of `layer` to `place`, and leaves none in it:

        dL/dW (+)= (dL/dy)ᵀ x,    dL/db (+)= Σ dL/dy,    y = x Wᵀ + b

    A backward that is not (`torch.autograd.grad`, gradients of gradients) is that of `nn.Linear`. So is all of a layer
    that somebody has given another forward, another weight for a while, or hooks that are to see the gradient (those of
    a tensor: one of its AccumulateGrad node is passed by); and all of a copy of the layer.
    """
    if isinstance(layer.forward, _Forward) or getattr(layer.forward, "__func__", None) is nn.Linear.forward:
        layer.forward = _Forward(layer, place)  # type: ignore[method-assign]


class _Forward:
    """In place of the layer's own."""

    def __init__(self, layer: nn.Linear, place: Place) -> None:
        self._layer, self._weight, self._bias, self._place = layer, layer.weight, layer.bias, place

    def __call__(self, input: Tensor) -> Tensor:  # as nn.Linear calls it
        weight, bias = self._layer.weight, self._layer.bias
        if weight is not self._weight or not weight.requires_grad or not _is_plain(input, weight):
            return linear(input, weight, bias)
        # [n, in] alone: with more dimensions what comes of `linear` is a view, and nobody could change it in place.
        rows = input if input.dim() == 2 else input.flatten(0, -2)
        found: Tensor = _Linear.apply(rows, weight, bias, self._place, bias is self._bias)  # type: ignore[no-untyped-call]
        return found if input.dim() == 2 else found.view(*input.shape[:-1], found.shape[-1])

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What a copy of the layer, or the layer read from a file, has here: the forward of nn.Linear."""
        return getattr, (self._layer, "forward")


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Rows of numbers as `_Linear` knows them, and nobody who would look into it (autocast, torch.func, a compiler,
    derivatives forward)."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype == weight.dtype
        and x.dim() > 1
        and x.layout == torch.strided
        and not x.is_nested
        and not torch.is_autocast_enabled(x.device.type)
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, place: Place, takes_bias: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.place, ctx.takes_bias = place, takes_bias
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias, *_ = ctx.needs_input_grad
        of_x = gradient @ weight if to_x else None
        takes_bias = to_bias and ctx.takes_bias and _accumulates(ctx, 2)
        taken = ctx.place.take(gradient, x, takes_bias) if to_weight and _accumulates(ctx, 1) else None
        if taken is None:
            return of_x, gradient.t() @ x if to_weight else None, gradient.sum(0) if to_bias else None, None, None
        of_weight, of_bias = taken
        of_weight.into.addmm_(gradient.t(), x, beta=float(of_weight.holds_a_sum))
        if of_bias is None:
            return of_x, None, gradient.sum(0) if to_bias else None, None, None
        if of_bias.holds_a_sum:
            of_bias.into.add_(gradient.sum(0))
        else:
            torch.sum(gradient, 0, out=of_bias.into)
        return of_x, None, None, None, None


def _accumulates(ctx: Any, number: int) -> bool:
    """Whether this backward ends in the `.grad` of that input, and no hook is to see it. One inside another may pass
    here on its way to something else: `torch.autograd.grad` in a hook, as implicit layers have it."""
    if torch.is_grad_enabled():
        return False
    to_parameter, _ = ctx.next_functions[number]
    if _has_hooks(to_parameter.variable):
        return False
    try:
        return torch._C._will_engine_execute_node(to_parameter)
    except RuntimeError:  # torch.autograd.grad that asks for this very gradient
        return False


def _has_hooks(weight: Tensor) -> bool:
    """Beyond the one that a bound replica has put there."""
    return bool(weight._backward_hooks) or len(weight._post_accumulate_grad_hooks or ()) > 1  # type: ignore[attr-defined]
