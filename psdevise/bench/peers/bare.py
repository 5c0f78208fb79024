"""W bare PyTorch processes, each with its own model and a fused Adagrad: nothing is exchanged, so nothing is faster."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from psdevise.bench.gate import Gate
from psdevise.bench.peers import common
from psdevise.bench.tasks import optimizer


def work(rank: int, given: dict[str, Any]) -> None:
    common.one_thread()
    case, gate = common.case_of(given), Gate(given["gate"])
    module = case.module()
    adagrad = optimizer(module.parameters())
    steps = 0
    for batch in cycle(case.batches()):
        if not gate.enter():
            break
        adagrad.zero_grad()
        module(*batch).backward()
        adagrad.step()
        steps += 1
    common.write_part(given, rank, common.lost(module, adagrad, steps))


if __name__ == "__main__":
    given = common.specification()
    common.spawn(work, given, given["workers"])
    common.write_result(given, given["workers"])
