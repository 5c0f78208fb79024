"""What the peers' programs share: their specification, processes, and a result in one form."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from psdevise.bench.gate import Gate
from psdevise.bench.tasks import CASES, Case, Marked, applied, optimizer


def specification() -> dict[str, Any]:
    with open(sys.argv[1]) as f:
        found: dict[str, Any] = json.load(f)
    return found


def case_of(given: dict[str, Any]) -> Case:
    return CASES[given["case"]]


def spawn(act: Callable[..., None], given: dict[str, Any], processes: int) -> None:
    """Calls act(rank, given) in so many new processes, and waits for them."""
    multiprocessing.spawn(act, (given,), processes)  # type: ignore[attr-defined, no-untyped-call]


def one_thread() -> None:
    torch.set_num_threads(1)


def train(rank: int, given: dict[str, Any], gate: Gate, module: Marked, called: nn.Module) -> None:
    """Steps of fused Adagrad until the gate is finished. `called`: what computes the loss of `module`'s parameters."""
    adagrad = optimizer(module.parameters())
    steps = 0
    for batch in cycle(case_of(given).batches()):
        if not gate.enter():
            break
        adagrad.zero_grad()
        called(*batch).backward()
        adagrad.step()
        steps += 1
    write_part(given, rank, lost(module, adagrad, steps))


def lost(module: Marked, optimizer: torch.optim.Optimizer, gradients: int) -> int:
    """How many of `gradients` the optimizer's sums do not hold, at the first or at the last place."""
    return sum(
        abs(gradients - applied(optimizer.state[m]["sum"][0])) for m in (module.first.weight, module.last.weight)
    )


def write_part(given: dict[str, Any], rank: int, errors: int) -> None:
    with open(os.path.join(given["folder"], f"errors-{rank}"), "w") as f:
        f.write(str(errors))


def write_result(given: dict[str, Any], processes: int) -> None:
    """Sums the parts; a process that left none counts as an error."""
    errors = 0
    for rank in range(processes):
        try:
            with open(os.path.join(given["folder"], f"errors-{rank}")) as f:
                errors += int(f.read())
        except FileNotFoundError:
            errors += 1
    with open(given["result"] + ".new", "w") as f:
        json.dump({"errors": errors}, f)
    os.replace(given["result"] + ".new", given["result"])
