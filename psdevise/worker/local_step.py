"""The steps of a replica by itself, between two fetches (Downpour's `parameters -= alpha * g`)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from psdevise.worker.replica import Replica


class LocalStep:
    """Where the replica stands by itself: the parameters that it fetched, stepped once by all that it has accrued since
    its last push,

        sgd:      p = p₀ − rate · Σg
        adagrad:  p = p₀ − rate · Σg / (√(s₀ + (Σg)²) + eps)

    with the accumulators s₀ that came with p₀: what the shard itself will do with that push, weight decay apart. So no
    gradient of a single step has to be kept apart from the sum. At the rates of the layout's groups; frozen groups do
    not move.

    Args:
        rate: the shards' base rate for adagrad, the replica's own for sgd.
    """

    def __init__(self, replica: Replica, rate: float, eps: float) -> None:
        self._replica, self._rate, self._eps = replica, rate, eps
        layout = replica.layout
        shares = {name: 0.0 if group.frozen else group.rate for name, group in layout.groups.items()}
        runs = replace(layout, shards=1).segments(0)
        if replica.accumulators is not None and replica.device.type == "cpu":
            from psdevise.worker.local_kernel import adagrad  # a compiler: a second and 35 MB, only where it is needed

            self._kernel = adagrad
        self._runs = [(slice(run.start, run.stop), shares[run.group]) for run in runs]

    def __call__(self, schedule: float) -> None:
        """At `schedule` times the rate. Where nothing is accrued the replica stands where it was fetched."""
        replica, accrued = self._replica, self._replica.accrued
        if accrued is None:
            replica.stand(replica.fetched)
            return
        for part, share in self._runs:
            self._step(replica.stepped[part], part, accrued[part], self._rate * schedule * share)
        replica.stand(replica.stepped)

    def keep(self, schedule: float) -> None:
        """Before a push that no fetch follows: what is pushed stays in the replica, which goes on from there."""
        self(schedule)
        replica, accrued = self._replica, self._replica.accrued
        if accrued is not None:
            replica.fetched.copy_(replica.stepped)
            if replica.accumulators is not None:
                replica.accumulators.addcmul_(accrued, accrued)

    def _step(self, into: Tensor, part: slice, gradient: Tensor, rate: float) -> None:
        fetched, sums = self._replica.fetched[part], self._replica.accumulators
        if not rate:
            into.copy_(fetched)  # also where the gradient is not finite
        elif sums is None:
            torch.sub(fetched, gradient, alpha=rate, out=into)
        elif into.device.type == "cpu":
            self._kernel(into.numpy(), fetched.numpy(), gradient.numpy(), sums[part].numpy(), rate, self._eps)
        else:
            scale = torch.addcmul(sums[part], gradient, gradient).sqrt_().add_(self._eps)
            torch.addcdiv(fetched, gradient, scale, value=-rate, out=into)
