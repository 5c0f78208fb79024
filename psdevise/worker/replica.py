"""A worker's copy of the parameters: one flat arena that the module's tensors are views of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.server.layout import Dense, Layout
from psdevise.server.protocol import Array, Landing, Pulled, Rows


def plain_memory(n: int) -> Array:
    return np.empty(n, np.float32)


class Replica:
    """
    Args:
        allocate: float32 [n] in host memory for gradients on their way; a host may give memory that the shards
            of this machine can read.

    Attributes:
        arena: float32 [size] on `device`; `bind` makes a module's parameters views of it.
        gradient: float32 [size] on `device`. A bound module's backward adds to it what it finds, all steps of a
            push; another task fills it anew in each step. On the CPU it is the very memory that will be pushed.
        accumulators: the shards' sums of squares [size], only where local Adagrad steps need them.
        tables: table → float32 [rows, dim] in host memory, current only in the rows last fetched.
        buffers: float32 [buffer_size] on `device`.
        keeps_own: whether a bound module's gradient of one step is there until `close_gradient`, for local steps.
    """

    def __init__(
        self,
        layout: Layout,
        device: str = "cpu",
        accumulators: bool = False,
        allocate: Callable[[int], Array] = plain_memory,
    ) -> None:
        self.layout, self.device = layout, torch.device(device)
        self.arena = torch.zeros(layout.size, device=self.device)
        self.gradient = torch.zeros(layout.size if device != "cpu" else 0, device=self.device)
        self.accumulators = torch.zeros(layout.size, device=self.device) if accumulators else None
        self.buffers = torch.zeros(layout.buffer_size, device=self.device)
        self.keeps_own = False
        self.tables: dict[str, Array] = {t.name: np.zeros((t.rows, t.dim), np.float32) for t in layout.tables}
        self._allocate = allocate
        self._free: list[Array] = []
        self._open: Array | None = None  # what `gradient` lies in, on the CPU
        self._sum: Array | None = None  # of the steps since the last push, of a task without a module
        self._begun = False
        self._missing: set[str] = set()
        self._parameters: dict[str, nn.Parameter] = {}  # of the bound module

    # ------------------------------------------------------------------ parameters

    def bind(self, module: nn.Module) -> None:
        """Points the module's parameters and float buffers at the arenas; from now on a backward brings each
        parameter's gradient to its place in `gradient`, as soon as it is there, and lets its own memory go."""
        module.to(self.device)
        parameters = dict(module.named_parameters())
        for part in self.layout.dense:
            start, stop = self.layout.offsets[part.name]
            parameter = self._parameters[part.name] = parameters[part.name]
            parameter.data = self.arena[start:stop].view(part.shape)
            parameter.grad = None
            parameter.register_post_accumulate_grad_hook(self._keeper(part))  # type: ignore[no-untyped-call]
        buffers = dict(module.named_buffers())
        for part in self.layout.buffers:
            start, stop = self.layout.buffer_offsets[part.name]
            buffers[part.name].data = self.buffers[start:stop].view(part.shape)

    def landing(self, shard: int) -> Landing | None:
        """Where a pull from `shard` may be copied to at once; None on a GPU."""
        if self.device.type != "cpu":
            return None
        part = slice(*self.layout.range(shard))
        sums = None if self.accumulators is None else self.accumulators[part].numpy()
        return Landing(self.arena[part].numpy(), sums)

    def install(self, shard: int, pulled: Pulled, rows: dict[str, Rows], landed: bool = False) -> None:
        """Copies what one shard sent: its range if it moved and has not `landed` in its place already, and
        `rows` (global ids) of the tables."""
        start, stop = self.layout.range(shard)
        if pulled.dense is not None and stop > start and not landed:
            self.arena[start:stop].copy_(torch.from_numpy(pulled.dense))
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
        self._missing = set(self._parameters)
        if self.device.type == "cpu" and self.layout.size:
            self._open = self._take()
            self.gradient = torch.from_numpy(self._open)

    def own_gradient(self, part: Dense) -> Tensor | None:
        """Until `close_gradient`: what this step alone found for a parameter, in its shape; None where the loss did
        not reach it. Of a bound module only with `keeps_own`."""
        if self._parameters:
            return self._parameters[part.name].grad
        return self.gradient[slice(*self.layout.offsets[part.name])].view(part.shape)

    def close_gradient(self) -> None:
        """After a step."""
        for parameter in self._parameters.values():
            parameter.grad = None
        if self._parameters or not self.layout.size:
            return
        step = self._on_host() if self._open is None else self._open
        self._open = None
        if self._sum is None:
            self._sum = step
        else:
            self._sum += step
            self.give_back(step)

    def take_gradient(self) -> Array | None:
        """The sum of the steps since the last push [size] in host memory, the caller's until `give_back`; None without
        a dense part."""
        self._begun = False
        if not self.layout.size:
            return None
        for name in self._missing:  # parameters that the loss did not reach
            start, stop = self.layout.offsets[name]
            self.gradient[start:stop].zero_()
        taken = self._open if self._parameters else self._sum
        self._open = self._sum = None
        return self._on_host() if taken is None else taken

    def give_back(self, gradient: Array) -> None:
        self._free.append(gradient)

    def _on_host(self) -> Array:
        taken = self._take()
        torch.from_numpy(taken).copy_(self.gradient)
        return taken

    def _take(self) -> Array:
        return self._free.pop() if self._free else self._allocate(self.layout.size)

    def _keeper(self, part: Dense) -> Callable[[Tensor], None]:
        start, stop = self.layout.offsets[part.name]

        def keep(parameter: Tensor) -> None:
            assert parameter.grad is not None
            place = self.gradient[start:stop].view(part.shape)
            if part.name in self._missing:
                place.copy_(parameter.grad)
                self._missing.discard(part.name)
            else:
                place.add_(parameter.grad)
            if not self.keeps_own:
                parameter.grad = None

        return keep


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
