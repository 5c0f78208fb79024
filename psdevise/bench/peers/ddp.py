"""DistributedDataParallel over gloo with W processes: gradients are averaged and applied in every step."""

from __future__ import annotations

import os
from typing import Any

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from psdevise.bench.gate import Gate
from psdevise.bench.peers import common


def work(rank: int, given: dict[str, Any]) -> None:
    common.one_thread()
    store = dist.FileStore(  # type: ignore[attr-defined]
        os.path.join(given["folder"], "rendezvous"), given["workers"]
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=given["workers"])
    module = common.case_of(given).module()
    # Views save a copy of every gradient; with statistics that never move, buffers need no broadcast.
    parallel = DistributedDataParallel(module, gradient_as_bucket_view=True, broadcast_buffers=False)
    common.train(rank, given, Gate(given["gate"], lockstep=True), module, parallel)
    dist.destroy_process_group()


if __name__ == "__main__":
    given = common.specification()
    common.spawn(work, given, given["workers"])
    common.write_result(given, given["workers"])
