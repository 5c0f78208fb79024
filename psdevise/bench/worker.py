"""`psdevise bench worker`: W Downpour workers beside W bare PyTorch processes, and what else trains on W cores.

A case's rounds hold every system once. n = 1 and n = 8 share their rounds, and so the bare processes and DDP.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from psdevise.bench import machine
from psdevise.bench.contest import Program, System
from psdevise.bench.rounds import Rounds, paired
from psdevise.bench.table import Context, Row
from psdevise.bench.tasks import CASES

PEERS = "psdevise.bench.peers"
METRIC, UNIT, REFERENCE = "images_per_second", "1/s", "bare"


@dataclass(frozen=True)
class Plan:
    """How long: `seconds` is a system's turn, so that a round of the three default systems takes 10 s (AlexNet 60)."""

    case: str
    workers: int
    intervals: tuple[int, ...] = (1, 8)
    rounds: int = 15
    seconds: float = 10 / 3
    warm_up: float = 2.0


def plans(full: bool) -> list[Plan]:
    """W = 2 alone by default; with --full also W = 1."""
    found = []
    for workers in (2, 1) if full else (2,):
        found += [Plan("cnn32", workers), Plan("mlp", workers)]
        found.append(Plan("alexnet224", workers, rounds=5, seconds=20.0, warm_up=12.0))
    return found


def run(context: Context) -> list[Row]:
    """The rows of all cases: pictures per second and their ratio to the bare processes', and this machine's figures."""
    rows = machine.figures("worker")
    chosen = plans(context.full)
    sides = [programs(plan, context.full) for plan in chosen]
    total = sum((1 + plan.rounds) * len(s) for plan, s in zip(chosen, sides, strict=True))
    before, calls = 0, []
    for plan, systems in zip(chosen, sides, strict=True):
        begun = before

        def done(turns: int, plan: Plan = plan, begun: int = begun) -> None:
            context.on_progress(begun + turns, total, f"{plan.case} W={plan.workers}")

        found, call = measure(plan, systems, done)
        rows += found
        calls += call
        before += (1 + plan.rounds) * len(systems)
    return rows + calls[:1]


def programs(plan: Plan, full: bool) -> dict[str, Program]:
    """name → program; `psdevise n=8` and the like are told apart only within a contest."""
    case = CASES[plan.case]
    names = ["bare", "ddp", *(("ray_example", "torch_rpc") if full else ())]
    common = {"case": plan.case, "workers": plan.workers}
    sides = len(names) + len(plan.intervals)
    found = {
        f"psdevise n={n}": Program("psdevise.bench.ours", common | {"n": n, "sides": sides}, plan.workers, case.batch)
        for n in plan.intervals
    }
    return found | {name: Program(f"{PEERS}.{name}", common, plan.workers, case.batch) for name in names}


def measure(
    plan: Plan, systems: Mapping[str, Program], done: Callable[[int], None] = lambda turns: None
) -> tuple[list[Row], list[Row]]:
    """Runs one contest → its rows, and the row of an empty Ray call where a system gave one."""
    running: dict[str, System] = {}
    with tempfile.TemporaryDirectory(prefix="psdevise-bench-") as folder:
        try:
            # One after the other: each starts, makes its first steps, and is stopped before the next one starts.
            for name, program in systems.items():
                running[name] = System(name, program, os.path.join(folder, name.replace(" ", "-")))
                running[name].start(plan.warm_up)
                done(len(running))
            turns = {name: _turn(system, plan.seconds) for name, system in running.items()}
            found = paired(turns, plan.rounds, lambda n: done(len(systems) + n))
            results = {name: system.end() for name, system in running.items()}
        finally:
            for system in running.values():
                system.kill()
    errors = {name: int(result["errors"]) for name, result in results.items()}
    rows = []
    for n in plan.intervals:
        ours = f"psdevise n={n}"
        here = {k.split()[0]: v for k, v in found.values.items() if k == ours or not k.startswith("psdevise")}
        wrong = {k.split()[0]: v for k, v in errors.items() if k == ours or not k.startswith("psdevise")}
        case = f"{plan.case} W={plan.workers} n={n}"
        rows += Rounds(here, wrong).rows("worker", case, METRIC, UNIT, REFERENCE)
    calls = [replace(Row(**r["empty_call"]), benchmark="worker") for r in results.values() if "empty_call" in r]
    return rows, calls


def _turn(system: System, seconds: float) -> Callable[[int], float]:
    return lambda number: system.turn(seconds)
