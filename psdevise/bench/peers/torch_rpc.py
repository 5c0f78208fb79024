"""A parameter server made by hand on torch.distributed.rpc: what one writes who knows torch well.

The server holds one flat vector and a fused Adagrad on it. A worker sends its flat gradient and gets the parameters
back in the same call, which is under way while the next gradient is computed on the parameters before.
"""

from __future__ import annotations

import os
import threading
from itertools import cycle
from typing import Any

import torch
import torch.distributed.rpc as rpc
from torch import Tensor

from psdevise.bench.gate import Gate
from psdevise.bench.peers import common
from psdevise.bench.tasks import Marked, applied, optimizer

SERVER = "server"


class Server:
    """The parameters, one for the whole process."""

    def __init__(self, module: Marked) -> None:
        self._flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).requires_grad_()
        self._optimizer = optimizer([self._flat])
        self._lock = threading.Lock()

    def update(self, gradient: Tensor | None) -> Tensor:
        with self._lock:
            if gradient is not None:
                self._flat.grad = gradient
                self._optimizer.step()
            return self._flat.detach().clone()

    def lost(self, gradients: int, last: int) -> int:
        sums = self._optimizer.state[self._flat]["sum"]
        return abs(gradients - applied(sums[0])) + abs(gradients - applied(sums[last]))


server: Server | None = None


def update(gradient: Tensor | None) -> Tensor:
    assert server is not None
    return server.update(gradient)


def lost(gradients: int, last: int) -> int:
    assert server is not None
    return server.lost(gradients, last)


def work(rank: int, given: dict[str, Any]) -> None:
    global server
    common.one_thread()
    case, workers = common.case_of(given), given["workers"]
    module = case.module()
    if rank == workers:
        server = Server(module)
    rpc.init_rpc(  # type: ignore[no-untyped-call]
        SERVER if rank == workers else f"worker{rank}",
        rank=rank,
        world_size=workers + 1,
        rpc_backend_options=rpc.TensorPipeRpcBackendOptions(
            init_method=f"file://{os.path.join(given['folder'], 'rendezvous')}", rpc_timeout=3600, num_worker_threads=2
        ),
    )
    if rank < workers:
        _train(rank, given, module, case.batches())
    rpc.shutdown(timeout=3600)


def _train(rank: int, given: dict[str, Any], module: Marked, batches: list[Any]) -> None:
    gate = Gate(given["gate"])
    parameters = list(module.parameters())
    offsets = [0, *torch.tensor([p.numel() for p in parameters]).cumsum(0).tolist()]
    # Weights are views of flat memory: what arrives is copied once.
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, start in zip(parameters, offsets, strict=False):
        p.data = flat[start : start + p.numel()].view_as(p)
    coming = rpc.rpc_async(SERVER, update, (None,))
    for batch in cycle(batches):
        if not gate.enter(wrong=int(module.torn)):
            break
        gate.count()
        for p in parameters:
            p.grad = None
        module(*batch).backward()
        flat.copy_(coming.wait())
        gradient = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        coming = rpc.rpc_async(SERVER, update, (gradient,))
    coming.wait()
    rpc.api._barrier({f"worker{i}" for i in range(given["workers"])})
    missing = 0
    if rank == 0:
        missing = rpc.rpc_sync(SERVER, lost, (gate.total, offsets[-2])) + gate.wrong
    common.write_part(given, rank, missing)


if __name__ == "__main__":
    given = common.specification()
    common.spawn(work, given, given["workers"] + 1)
    common.write_result(given, given["workers"])
