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
        gradient: float32 [size] on `device`, the gradient of the step under way; on the CPU it is the very memory
            that will be pushed.
        accumulators: the shards' sums of squares [size], only where local Adagrad steps need them.
        tables: table → float32 [rows, dim] in host memory, current only in the rows last fetched.
        buffers: float32 [buffer_size] on `device`.
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
        self.tables: dict[str, Array] = {t.name: np.zeros((t.rows, t.dim), np.float32) for t in layout.tables}
        self._allocate = allocate
        self._free: list[Array] = []
        self._open: Array | None = None
        self._missing: set[str] = set()
        self._bound = False

    # ------------------------------------------------------------------ parameters

    def bind(self, module: nn.Module) -> None:
        """Points the module's parameters and float buffers at the arenas; from now on a backward writes each
        parameter's gradient to its place in `gradient`, as soon as it is there, and lets its own memory go."""
        module.to(self.device)
        parameters = dict(module.named_parameters())
        for part in self.layout.dense:
            start, stop = self.layout.offsets[part.name]
            parameters[part.name].data = self.arena[start:stop].view(part.shape)
            parameters[part.name].grad = None
            parameters[part.name].register_post_accumulate_grad_hook(self._keeper(part))  # type: ignore[no-untyped-call]
        buffers = dict(module.named_buffers())
        for part in self.layout.buffers:
            start, stop = self.layout.buffer_offsets[part.name]
            buffers[part.name].data = self.buffers[start:stop].view(part.shape)
        self._bound = True

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
        """Before a step: on the CPU, `gradient` becomes memory that no push on its way holds."""
        self._missing = {p.name for p in self.layout.dense} if self._bound else set()
        if self.device.type == "cpu" and self.layout.size:
            self._open = self._take()
            self.gradient = torch.from_numpy(self._open)

    def take_gradient(self) -> Array | None:
        """After a step: its gradient [size] in host memory, the caller's until `give_back`; None without a dense
        part."""
        for name in self._missing:  # parameters that the loss did not reach
            start, stop = self.layout.offsets[name]
            self.gradient[start:stop].zero_()
        if not self.layout.size:
            return None
        taken = self._open
        if taken is None:
            taken = self._take()
            torch.from_numpy(taken).copy_(self.gradient)
        self._open = None
        return taken

    def give_back(self, gradient: Array) -> None:
        self._free.append(gradient)

    def _take(self) -> Array:
        return self._free.pop() if self._free else self._allocate(self.layout.size)

    def _keeper(self, part: Dense) -> Callable[[Tensor], None]:
        start, stop = self.layout.offsets[part.name]

        def keep(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.gradient[start:stop].view(part.shape).copy_(parameter.grad)
            parameter.grad = None
            self._missing.discard(part.name)

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
