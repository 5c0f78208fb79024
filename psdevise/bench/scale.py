"""`psdevise bench scale`: 1 to 16 workers whose compute is a wait: steps per second, lag, where the server saturates.

Every number of workers is a system of its own with its own shards; all take turns at both step times. The bound is what
this machine's cores and the shards, one push at a time each, allow at most:

    bound(W, S) = min( W · r(1, S),  cores / (2 · call + memcpy + Adagrad),  1 / (call + Adagrad / S) )

with r(1, S) what one worker did in the same round, call the CPU time of an empty Ray call on both sides, and memcpy and
Adagrad the times of one pass over all parameters, all taken in this run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import torch

from psdevise.bench import arithmetic, handling, machine
from psdevise.bench.contest import CORES, Program, System
from psdevise.bench.rounds import Rounds, paired
from psdevise.bench.table import Context, Row
from psdevise.runtime.actor import Empty, spawn
from psdevise.runtime.cluster import disconnect, start_local

MEGABYTES = 16.0


@dataclass(frozen=True)
class Plan:
    """`milliseconds`: the step times; `seconds`: a turn."""

    shards: tuple[int, ...] = (1, 2)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    milliseconds: tuple[int, ...] = (200, 50)
    megabytes: float = MEGABYTES
    rounds: int = 5
    seconds: float = 5.0
    warm_up: float = 2.0


@dataclass(frozen=True)
class Costs:
    """Seconds: `call` of CPU on both sides of an empty Ray call, `memcpy` and `adagrad` of all parameters."""

    call: float
    memcpy: float
    adagrad: float

    def bound(self, workers: int, shards: int, one: float, cores: int = CORES) -> float:
        """Steps per second at most; `one` is one worker's."""
        step = 2 * self.call + self.memcpy + self.adagrad
        return min(workers * one, cores / step, 1 / (self.call + self.adagrad / shards))


def run(context: Context) -> list[Row]:
    plan = Plan(shards=(1, 2, 4)) if context.full else Plan()
    rows = machine.figures("scale")
    costs, call = measure_costs(plan.megabytes)
    turns = len(plan.workers) * (1 + plan.rounds * len(plan.milliseconds))
    for i, shards in enumerate(plan.shards):

        def done(n: int, i: int = i, shards: int = shards) -> None:
            context.on_progress(i * turns + n, len(plan.shards) * turns, f"{shards} shards")

        rows += measure(plan, shards, costs, done)
    return [*rows, _row("call CPU, both sides", costs.call), call, *handling.rows("scale")]


def measure(plan: Plan, shards: int, costs: Costs, done: Callable[[int], None] = lambda turns: None) -> list[Row]:
    """All numbers of workers at one number of shards."""
    running: dict[int, System] = {}
    with tempfile.TemporaryDirectory(prefix="psdevise-bench-") as folder:
        try:
            for workers in plan.workers:
                specification: dict[str, Any] = {"case": "timer", "workers": workers, "sides": len(plan.workers)}
                specification |= {"megabytes": plan.megabytes, "shards": shards}
                program = Program("psdevise.bench.ours", specification, workers, batch=1)
                running[workers] = System(f"{workers} workers", program, os.path.join(folder, str(workers)))
                running[workers].start(plan.warm_up, plan.milliseconds[0] * 1000)
                done(len(running))
            found = {}
            for k, milliseconds in enumerate(plan.milliseconds):
                turns = {str(w): _turn(system, plan.seconds, milliseconds) for w, system in running.items()}
                before = len(running) * (1 + k * plan.rounds)
                found[milliseconds] = paired(turns, plan.rounds, partial(_later, done, before)).values
            results = {workers: system.end() for workers, system in running.items()}
        finally:
            for system in running.values():
                system.kill()
    rows = []
    for milliseconds, values in found.items():
        one = values[str(plan.workers[0])]
        for workers in plan.workers:
            case = f"W={workers} shards={shards} {milliseconds} ms"
            errors = {"psdevise": int(results[workers]["errors"])}
            here = values[str(workers)]
            sides = {"psdevise": here, "one_worker_times_W": [workers * r / plan.workers[0] for r in one]}
            rows += Rounds(sides, errors).rows("scale", case, "steps_per_second", "1/s", "one_worker_times_W")
            bounds = [costs.bound(workers, shards, r / plan.workers[0]) for r in one]
            rows += Rounds({"psdevise": here, "bound": bounds}, errors).rows(
                "scale", case, "steps_per_second_of_bound", "1/s", "bound"
            )
    for workers in plan.workers:
        lag = float(results[workers]["lag"])
        rows.append(Row("scale", f"W={workers} shards={shards}", "psdevise", "lag", lag, lag, lag, "updates"))
    return rows


def measure_costs(megabytes: float, repeats: int = 30) -> tuple[Costs, Row]:
    """This machine's costs, and the row of an empty Ray call's round trip; starts and ends a Ray of its own."""
    torch.set_num_threads(1)
    size = int(megabytes * 1e6 / 4)
    memcpy = arithmetic.seconds(arithmetic.memcpy(size), repeats)
    adagrad = arithmetic.seconds(arithmetic.adagrad(size), repeats)
    start_local(CORES)
    try:
        actor = spawn(Empty)
        row = machine.empty_call("scale", lambda: actor.ask("nothing"))
        both = [psutil.Process(), psutil.Process(actor.ask("pid"))]
        calls = 500
        before = _cpu(both)
        for _ in range(calls):
            actor.ask("nothing")
        call = (_cpu(both) - before) / calls
    finally:
        disconnect()
    return Costs(call, memcpy, adagrad), row


def _cpu(processes: list[psutil.Process]) -> float:
    return float(sum(sum(p.cpu_times()[:2]) for p in processes))


def _later(done: Callable[[int], None], before: int, turns: int) -> None:
    done(before + turns)


def _row(what: str, seconds: float) -> Row:
    return Row("scale", "machine", what, "milliseconds", seconds * 1e3, seconds * 1e3, seconds * 1e3, "ms")


def _turn(system: System, seconds: float, milliseconds: int) -> Callable[[int], float]:
    return lambda number: system.turn(seconds, setting=milliseconds * 1000)
