"""The steps of a replica by itself, between two fetches (Downpour's `parameters -= alpha * g`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad

from psdevise.worker.replica import Replica


class LocalStep:
    """One step with the gradient of one mini-batch, at the rates of the layout's groups:

        sgd:      p ← p − rate · g
        adagrad:  s ← s + g²,  p ← p − rate · g / (√s + eps)

    with the accumulators s that came with the parameters, as the shard itself would step. One pass over the
    parameters, in the module's own gradients; frozen groups do not move.

    Args:
        rate: the shards' base rate for adagrad, the replica's own for sgd.
    """

    def __init__(self, replica: Replica, rate: float, eps: float) -> None:
        self._replica, self._rate, self._eps = replica, rate, eps
        layout = replica.layout
        self._parts = [p for p in layout.dense if not layout.groups[p.group].frozen]
        self._fused = replica.device.type == "cpu"  # torch has no fused Adagrad for other devices
        self._steps = {p.name: torch.zeros(()) for p in self._parts}

    def __call__(self, schedule: float) -> None:
        """With `schedule` times the rate."""
        replica, layout = self._replica, self._replica.layout
        reached = [(p, g) for p in self._parts if (g := replica.own_gradient(p)) is not None]
        for group in {p.group for p, _ in reached}:
            rate = self._rate * schedule * layout.groups[group].rate
            members = [(p, g) for p, g in reached if p.group == group]
            gradients = [g for _, g in members]
            parameters = [self._view(replica.arena, p.name, g) for p, g in members]
            if replica.accumulators is None:
                torch._foreach_add_(parameters, gradients, alpha=-rate)
                continue
            sums = [self._view(replica.accumulators, p.name, g) for p, g in members]
            steps = [self._steps[p.name] for p, _ in members]
            adagrad(
                parameters, gradients, sums, steps, fused=self._fused, foreach=not self._fused,
                lr=rate, weight_decay=0.0, lr_decay=0.0, eps=self._eps, maximize=False,
            )  # fmt: skip

    def _view(self, arena: Tensor, name: str, like: Tensor) -> Tensor:
        return arena[slice(*self._replica.layout.offsets[name])].view(like.shape)
