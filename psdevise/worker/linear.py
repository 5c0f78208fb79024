"""Weight gradients of linear layers, made where they will be pushed.

autograd makes a gradient in memory of its own; from there it would be copied to where it is pushed from, and a sum over
steps would be a further pass. Most parameters of the nets that are trained here stand in linear layers.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Place(Protocol):
    """Where the gradient of one weight goes."""

    def take(self, of_outputs: Tensor, inputs: Tensor) -> tuple[Tensor, bool] | None:
        """The place, in the weight's shape, and whether it holds a sum that is to be added to; None when no gradient
        is taken now.

        Args:
            of_outputs: the gradient of the layer's outputs [n, out].
            inputs: its inputs [n, in]; the weight's gradient is of_outputsᵀ inputs.
        """


def bring_gradient(layer: nn.Linear, place: Place) -> None:
    """From now on a backward that is taken brings the gradient of `layer`'s weight to `place`, and leaves none in it:

        dL/dW (+)= (dL/dy)ᵀ x,    y = x Wᵀ + b

    A backward that is not (`torch.autograd.grad` in a loss, gradients of gradients) is that of `nn.Linear`.
    """

    def forward(x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type) or not layer.weight.requires_grad or x.dtype != layer.weight.dtype:
            return linear(x, layer.weight, layer.bias)
        return _Linear.apply(x, layer.weight, layer.bias, place)  # type: ignore[no-any-return, no-untyped-call]

    layer.forward = forward  # type: ignore[assignment]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, place: Place) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.place = place
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        rows, inputs = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        of_x = gradient @ weight if to_x else None
        of_bias = rows.sum(0) if to_bias else None
        of_weight = None
        if to_weight:
            taken = None if torch.is_grad_enabled() else ctx.place.take(rows, inputs)
            if taken is None:
                of_weight = rows.t() @ inputs
            else:
                into, holds_a_sum = taken
                into.addmm_(rows.t(), inputs, beta=float(holds_a_sum))
        return of_x, of_weight, of_bias, None
