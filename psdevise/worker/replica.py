"""A worker's copy of the parameters: one flat arena that the module's tensors are views of."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from psdevise.server.layout import Dense, Layout
from psdevise.server.protocol import Array, Pulled, Rows


class Replica:
    """
    Attributes:
        arena: float32 [size] on `device`; `bind` makes a module's parameters views of it.
        gradient: float32 [size] on `device`; autograd adds into it.
        accumulators: the shards' sums of squares [size], only where local Adagrad steps need them.
        tables: table → float32 [rows, dim] in host memory, current only in the rows last fetched.
        buffers: float32 [buffer_size] on `device`.
    """

    def __init__(self, layout: Layout, device: str = "cpu", accumulators: bool = False) -> None:
        self.layout, self.device = layout, torch.device(device)
        self.arena = torch.zeros(layout.size, device=self.device)
        self.gradient = torch.zeros(layout.size, device=self.device)
        self.accumulators = torch.zeros(layout.size, device=self.device) if accumulators else None
        self.buffers = torch.zeros(layout.buffer_size, device=self.device)
        self.tables: dict[str, Array] = {t.name: np.zeros((t.rows, t.dim), np.float32) for t in layout.tables}

    def bind(self, module: nn.Module) -> None:
        """Points the module's parameters, their gradients and its float buffers at the arenas."""
        module.to(self.device)
        parameters = dict(module.named_parameters())
        for part in self.layout.dense:
            start, stop = self.layout.offsets[part.name]
            parameter = parameters[part.name]
            parameter.data = self.arena[start:stop].view(part.shape)
            parameter.grad = self.gradient[start:stop].view(part.shape)
        buffers = dict(module.named_buffers())
        for part in self.layout.buffers:
            start, stop = self.layout.buffer_offsets[part.name]
            buffers[part.name].data = self.buffers[start:stop].view(part.shape)

    def install(self, shard: int, pulled: Pulled, rows: dict[str, Rows]) -> None:
        """Copies what one shard sent: its range if it moved, and `rows` (global ids) of the tables."""
        start, stop = self.layout.range(shard)
        if pulled.dense is not None and stop > start:
            self.arena[start:stop].copy_(torch.from_numpy(pulled.dense))
            if self.accumulators is not None and pulled.accumulators is not None:
                self.accumulators[start:stop].copy_(torch.from_numpy(pulled.accumulators))
        for name, ids in rows.items():
            self.tables[name][ids] = pulled.rows[name]
        if pulled.buffers is not None and len(pulled.buffers):
            self.buffers.copy_(torch.from_numpy(pulled.buffers))


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
