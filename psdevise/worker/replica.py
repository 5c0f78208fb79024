"""A worker's copy of the parameters: one flat arena that the module's tensors are views of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf, sqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.server.layout import Dense, Layout
from psdevise.server.protocol import Array, Landing, Pulled, Rows
from psdevise.worker.linear import Taken, bring_gradient

LocalSteps = Literal["none", "sgd", "adagrad"]


def plain_memory(n: int) -> Array:
    return np.empty(n, np.float32)


class Replica:
    """
    Args:
        local_step: whether, and how, it steps by itself between fetches: `adagrad` with the shards' sums of squares,
            which then come with the parameters.
        allocate: float32 [n] in host memory for gradients on their way; a host may give memory that the shards
            of this machine can read.

    Attributes:
        fetched: float32 [size] on `device`: the parameters that came last.
        stepped: the replica's own steps from there [size], if it makes any.
        arena: of these two the one to compute with (`stand`); a bound module's parameters are views of it.
        gradient: float32 [size] on `device`. What is taken of a bound module's backward is added to it, all steps of
            a push; another task fills it anew in each step. On the CPU it is the very memory that will be pushed.
        accumulators: the shards' sums of squares [size] that came with `fetched`.
        bound: no value of what is accrued is larger in magnitude; infinite where that was not looked at, and no number
            where the gradient is none.
        tables: table → float32 [rows, dim] in host memory, current only in the rows last fetched.
        buffers: float32 [buffer_size] on `device`.
    """

    def __init__(
        self,
        layout: Layout,
        device: str = "cpu",
        local_step: LocalSteps = "none",
        allocate: Callable[[int], Array] = plain_memory,
    ) -> None:
        self.layout, self.device = layout, torch.device(device)
        self.fetched = self.arena = torch.zeros(layout.size, device=self.device)
        self.stepped = torch.zeros(layout.size if local_step != "none" else 0, device=self.device)
        self._gradient = torch.zeros(layout.size if device != "cpu" else 0, device=self.device)
        self.accumulators = torch.zeros(layout.size, device=self.device) if local_step == "adagrad" else None
        self.buffers = torch.zeros(layout.buffer_size, device=self.device)
        self.tables: dict[str, Array] = {t.name: np.zeros((t.rows, t.dim), np.float32) for t in layout.tables}
        self.bound = 0.0
        self._allocate = allocate
        self._free: list[Array] = []
        self._open: Array | None = None  # what `gradient` lies in, on the CPU
        self._sum: Array | None = None  # of the steps since the last push, of a task without a module
        self._begun = False
        self._missing: set[str] = set()  # parameters whose places hold nothing of the steps since the last push
        self._taking = False
        self._parameters: dict[str, nn.Parameter] = {}  # of the bound module
        self._views: dict[int, dict[str, Tensor]] = {}  # memory's address → the parameters' places in it
        self._places: dict[str, Tensor] = {}  # those in `gradient`

    # ------------------------------------------------------------------ parameters

    def bind(self, module: nn.Module) -> None:
        """Points the module's parameters and float buffers at the arenas; from now on a backward inside `taking` brings
        each parameter's gradient to its place in `gradient`, as soon as it is there, and lets its own memory go."""
        module.to(self.device)
        parameters = dict(module.named_parameters())
        self._parameters = {part.name: parameters[part.name] for part in self.layout.dense}
        self._point()
        for part in self.layout.dense:
            parameter = parameters[part.name]
            parameter.grad = None
            parameter.register_post_accumulate_grad_hook(partial(self._keep, part.name))  # type: ignore[no-untyped-call]
        buffers = dict(module.named_buffers())
        for part in self.layout.buffers:
            start, stop = self.layout.buffer_offsets[part.name]
            buffers[part.name].data = self.buffers[start:stop].view(part.shape)
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        for layer in module.modules():
            if type(layer) is nn.Linear and id(layer.weight) in names:
                bring_gradient(layer, _Place(self, names[id(layer.weight)], names.get(id(layer.bias))))

    def stand(self, on: Tensor) -> None:
        """From now on computes with `fetched` or `stepped`."""
        if on is not self.arena:
            self.arena = on
            self._point()

    def _point(self) -> None:
        for part in self.layout.dense:
            if part.name in self._parameters:
                place = self.arena[slice(*self.layout.offsets[part.name])]
                self._parameters[part.name].data = place.view(part.shape)

    def landing(self, shard: int) -> Landing | None:
        """Where a pull from `shard` may be copied to at once; None on a GPU."""
        if self.device.type != "cpu":
            return None
        part = slice(*self.layout.range(shard))
        sums = None if self.accumulators is None else self.accumulators[part].numpy()
        return Landing(self.fetched[part].numpy(), sums)

    def install(self, shard: int, pulled: Pulled, rows: dict[str, Rows], landed: bool = False) -> None:
        """Copies what one shard sent: its range if it moved and has not `landed` in its place already, and
        `rows` (global ids) of the tables."""
        start, stop = self.layout.range(shard)
        if pulled.dense is not None and stop > start and not landed:
            self.fetched[start:stop].copy_(torch.from_numpy(pulled.dense))
            if self.accumulators is not None and pulled.accumulators is not None:
                self.accumulators[start:stop].copy_(torch.from_numpy(pulled.accumulators))
        for name, ids in rows.items():
            self.tables[name][ids] = pulled.rows[name]
        if pulled.buffers is not None and len(pulled.buffers):
            self.buffers.copy_(torch.from_numpy(pulled.buffers))

    # ------------------------------------------------------------------ gradients

    def open_gradient(self) -> None:
        """Before a step: on the CPU, `gradient` lies in memory that no push on its way holds."""
        if self._parameters and self._begun:
            return  # since the last push
        self._begun = True
        self.bound = 0.0 if self._parameters and self.device.type == "cpu" else inf
        self._missing = set(self._parameters)
        if self.device.type == "cpu" and self.layout.size:
            self._open = self._take()
            self._gradient = torch.from_numpy(self._open)
        if self._parameters:
            self._places = self._places_in(self._gradient)

    @property
    def gradient(self) -> Tensor:
        """Whoever asks for it may change it, so that nothing is known of its values any more."""
        self.bound = inf
        return self._gradient

    @contextmanager
    def taking(self) -> Iterator[None]:
        """A bound module's backward in here is the step's own."""
        self._taking = True
        try:
            yield
        finally:
            self._taking = False

    def close_gradient(self) -> None:
        """After a step. What a backward outside `taking` has left in the parameters is the step's too."""
        for name, parameter in self._parameters.items():
            self._take_over(name, parameter)
        for name in self._missing:  # parameters that the loss has not reached yet
            self._places[name].zero_()
        self._missing = set()
        if self._parameters or not self.layout.size:
            return
        step = self._on_host() if self._open is None else self._open
        self._open = None
        if self._sum is None:
            self._sum = step
        else:
            self._sum += step
            self.give_back(step)

    @property
    def accrued(self) -> Tensor | None:
        """Between steps: the sum of the steps since the last push [size]; None if there was none."""
        if self._parameters:
            return self._gradient if self._begun else None
        return None if self._sum is None else torch.from_numpy(self._sum).to(self.device)

    def take_gradient(self) -> Array | None:
        """The sum of the steps since the last push [size] in host memory, the caller's until `give_back`; None without
        a dense part."""
        self._begun = False
        if not self.layout.size:
            return None
        taken = self._open if self._parameters else self._sum
        self._open = self._sum = None
        return self._on_host() if taken is None else taken

    def give_back(self, gradient: Array) -> None:
        self._free.append(gradient)

    def _on_host(self) -> Array:
        taken = self._take()
        torch.from_numpy(taken).copy_(self._gradient)
        return taken

    def _take(self) -> Array:
        return self._free.pop() if self._free else self._allocate(self.layout.size)

    def _keep(self, name: str, parameter: Tensor) -> None:
        if self._taking:
            self._take_over(name, parameter)

    def _take_over(self, name: str, parameter: Tensor) -> None:
        if parameter.grad is None:  # it is where it belongs already (`linear`), or was not reached
            return
        gradient = parameter.grad.detach()  # what is pushed has no graph, whatever the backward made
        into, holds_a_sum = self._place(name)
        if self.bound < inf:
            self.bound += sqrt(_square(gradient))
        if holds_a_sum:
            into.add_(gradient)
        else:
            into.copy_(gradient)
        parameter.grad = None

    def _place(self, name: str) -> Taken:
        """Where a parameter's gradient goes, and whether something of it is there; from now on there is."""
        holds_a_sum = name not in self._missing
        self._missing.discard(name)
        return Taken(self._places[name], holds_a_sum)

    def _places_in(self, memory: Tensor) -> dict[str, Tensor]:
        """Made once for each memory: behind a product of matrices nothing of Python is in a cache, and eight views cost
        .4 ms."""
        address = memory.data_ptr()
        if address not in self._views:
            offsets = self.layout.offsets
            self._views[address] = {
                part.name: memory[slice(*offsets[part.name])].view(part.shape) for part in self.layout.dense
            }
        return self._views[address]


class _Place:
    """That of one linear layer (`linear.Place`)."""

    def __init__(self, replica: Replica, weight: str, bias: str | None) -> None:
        self._replica, self._weight, self._bias = replica, weight, bias

    def take(self, of_outputs: Tensor, inputs: Tensor, bias: bool) -> tuple[Taken, Taken | None] | None:
        replica = self._replica
        if not replica._taking:
            return None
        of_bias = self._bias if bias else None
        if replica.bound < inf:
            # |Σ gᵢxⱼ| ≤ ‖g‖‖x‖, and |Σ gᵢ| ≤ ‖g‖ √n (Cauchy and Schwarz).
            norm = sqrt(_square(of_outputs))
            replica.bound += norm * sqrt(_square(inputs)) + (norm * sqrt(len(of_outputs)) if of_bias else 0.0)
        return replica._place(self._weight), replica._place(of_bias) if of_bias else None


def _square(values: Tensor) -> float:
    """The sum of squares."""
    flat = values.reshape(-1)
    return float(torch.dot(flat, flat))


def named_layout(
    module: nn.Module, groups: dict[str, str] | None = None
) -> tuple[tuple[Dense, ...], tuple[Dense, ...]]:
    """A module's trainable parameters and its float buffers, in its own order.

    Args:
        groups: name prefix → group; parameters that match none are in `default`.
    """

    def group_of(name: str) -> str:
        matches = [g for prefix, g in (groups or {}).items() if name.startswith(prefix)]
        return matches[-1] if matches else "default"

    dense = tuple(Dense(n, tuple(p.shape), group_of(n)) for n, p in module.named_parameters() if p.requires_grad)
    buffers = tuple(Dense(n, tuple(b.shape)) for n, b in module.named_buffers() if b.is_floating_point())
    return dense, buffers


def values(module: nn.Module) -> dict[str, Array]:
    """name → array of a module's parameters and float buffers, copied."""
    tensors = dict(module.named_parameters()) | {n: b for n, b in module.named_buffers() if b.is_floating_point()}
    return {n: t.detach().to("cpu", torch.float32).numpy().copy() for n, t in tensors.items()}
