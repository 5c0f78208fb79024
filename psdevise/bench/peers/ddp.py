"""DistributedDataParallel over gloo with W processes: gradients are averaged and applied in every step."""

from __future__ import annotations

import os
from itertools import cycle
from typing import Any

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from psdevise.bench.gate import Gate
from psdevise.bench.peers import common
from psdevise.bench.tasks import optimizer


def work(rank: int, given: dict[str, Any]) -> None:
    common.one_thread()
    store = dist.FileStore(  # type: ignore[attr-defined]
        os.path.join(given["folder"], "rendezvous"), given["workers"]
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=given["workers"])
    case, gate = common.case_of(given), Gate(given["gate"], lockstep=True)
    module = case.module()
    # Views save a copy of every gradient; with statistics that never move, buffers need no broadcast.
    parallel = DistributedDataParallel(module, gradient_as_bucket_view=True, broadcast_buffers=False)
    adagrad = optimizer(module.parameters())
    steps = 0
    for batch in cycle(case.batches()):
        if not gate.enter():
            break
        adagrad.zero_grad()
        parallel(*batch).backward()
        adagrad.step()
        steps += 1
    common.write_part(given, rank, common.lost(module, adagrad, steps))
    dist.destroy_process_group()


if __name__ == "__main__":
    given = common.specification()
    common.spawn(work, given, given["workers"])
    common.write_result(given, given["workers"])
