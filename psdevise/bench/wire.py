"""`psdevise bench wire`: pull and push beside memcpy and Adagrad in the same process, round trips, sparse rows.

A pull counts when a version newer than the last one lies whole in memory that the worker owns: each one is preceded by
a push, and looked at for tears. A push counts when its shards have checked it, applied it and said so. Between
two hosts the same stands beside a plain TCP stream (`between`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from psdevise.bench import arithmetic, between, machine, namespaces
from psdevise.bench.endpoint import Endpoint, Server
from psdevise.bench.rounds import Rounds, paired
from psdevise.bench.table import Context, Row
from psdevise.runtime.actor import empty_call, spawn
from psdevise.runtime.cluster import disconnect, start_local
from psdevise.server.optimizer import OptimizerOptions, TableOptimizer
from psdevise.server.protocol import Identity
from psdevise.worker.effects import Call

MEGABYTES = (0.1, 1.0, 4.0, 16.0, 64.0, 256.0)
SHARDS = (1, 2, 4)
ROWS, DIMS = (64, 256, 1024, 4096), (100, 500, 1000)
TABLE_ROWS = 20_000
ROUNDS = 15
CONTENDED_SECONDS = 5.0
BY_CALL = "empty_call"
Case = Callable[[str], list[Row]]


def run(context: Context) -> list[Row]:
    """All cases on this host; with --full every size with every number of shards."""
    torch.set_num_threads(1)
    rows = machine.figures("wire")
    cases: dict[str, Case] = {"round trip": round_trips}
    for shards in SHARDS:
        for megabytes in MEGABYTES if shards == 1 or context.full else (16.0, 256.0):
            cases[case_of(megabytes, shards)] = partial(dense, megabytes, shards)
    cases["a writer at full speed"] = partial(contended, 16.0)
    if why_not := namespaces.missing():
        context.on_note(f"wire, between two hosts: left out, {why_not}")
    else:
        cases["between two hosts"] = lambda folder: between.run(context)
    for dim in DIMS:
        cases[f"sparse rows of {dim}"] = partial(sparse, dim)
    os.environ.setdefault("RAY_worker_niceness", "0")
    start_local(max(2, os.cpu_count() or 1))
    try:
        for i, (name, case) in enumerate(cases.items()):
            context.on_progress(i, len(cases), name)
            with tempfile.TemporaryDirectory(prefix="psdevise-bench-") as folder:
                rows += case(os.path.join(folder, "start"))
        rows.append(machine.empty_call("wire", empty_call()))
        context.on_progress(len(cases), len(cases), "done")
    finally:
        disconnect()
    return rows


def case_of(megabytes: float, shards: int) -> str:
    return f"{megabytes:g} MB, {shards} shard{'s' if shards > 1 else ''}"


def dense(megabytes: float, shards: int, folder: str, rounds: int = ROUNDS) -> list[Row]:
    """Bandwidth of pulls beside memcpy, and of pushes beside memcpy + fused Adagrad; to 1 MB also the times of both
    beside an empty Ray call."""
    size = max(1, int(megabytes * 1e6 / 4))
    repeats = max(1, min(20, int(20 / megabytes)))
    server = Server(size, shards, folder)
    endpoint = Endpoint(server.layout, server.coordinator)
    copy, call = arithmetic.memcpy(size), empty_call()
    update = arithmetic.both(copy, arithmetic.adagrad(size))
    torn = pushes = 0

    def both(which: int) -> float:
        """The median time of a push (0) or of the pull behind it (1)."""
        nonlocal torn, pushes
        taken = []
        for _ in range(repeats):
            taken.append((endpoint.push(), endpoint.pull())[which])
            torn += endpoint.torn()
            pushes += 1
        return float(np.median(taken))

    found = _paired(
        {
            "push": lambda: both(0),
            "pull": lambda: both(1),
            "memcpy": lambda: arithmetic.seconds(copy, repeats),
            "memcpy_adagrad": lambda: arithmetic.seconds(update, repeats),
            BY_CALL: lambda: arithmetic.seconds(call, repeats),
        },
        rounds,
    )
    errors = torn + abs(pushes * server.parts - server.counts("applied"))
    server.end()

    case = case_of(megabytes, shards)
    speeds = {k: [megabytes / s for s in v] for k, v in found.items()}
    rows = _beside(speeds, "pull", "memcpy", case, "pull_bandwidth", "MB/s", errors)
    rows += _beside(speeds, "push", "memcpy_adagrad", case, "push_bandwidth", "MB/s", errors)
    if megabytes <= 1:
        times = {k: [s * 1e3 for s in v] for k, v in found.items()}
        for what in ("pull", "push"):
            rows += _beside(times, what, BY_CALL, case, f"{what}_time", "ms", errors)
    return rows


def contended(megabytes: float, folder: str, seconds: float = CONTENDED_SECONDS) -> list[Row]:
    """Pulls while another worker pushes without a pause: how fast, and how many were torn (none may be)."""
    server = Server(int(megabytes * 1e6 / 4), 1, folder)
    endpoint = Endpoint(server.layout, server.coordinator)
    writer = spawn(Endpoint, server.layout, server.coordinator, 1)
    before = writer.ask("push_for", 0.1)
    pushing = writer.begin("push_for", seconds)
    taken, torn = [], 0
    while not pushing.ready:
        taken.append(endpoint.pull())
        torn += endpoint.torn()
    errors = torn + abs(before + pushing.get() - server.counts("applied"))
    writer.end()
    server.end()
    case = f"{case_of(megabytes, 1)}, a writer at full speed"
    speeds = {"psdevise": [megabytes / t for t in taken]}
    return Rounds(speeds, {"psdevise": errors}).rows("wire", case, "pull_bandwidth", "MB/s", "psdevise")


def round_trips(folder: str, rounds: int = ROUNDS) -> list[Row]:
    """A call to a shard whose method finds nothing to do, beside an empty Ray call."""
    server = Server(1, 1, folder)
    endpoint = Endpoint(server.layout, server.coordinator)
    nothing, call = Call(0, "answer", (Identity(999, 0, 0, 0),)), empty_call()
    found = _paired(
        {
            "psdevise": lambda: arithmetic.seconds(lambda: endpoint.ask(nothing), 100) * 1e3,
            BY_CALL: lambda: arithmetic.seconds(call, 100) * 1e3,
        },
        rounds,
    )
    server.end()
    return _beside(found, "psdevise", BY_CALL, "round trip", "round_trip_time", "ms", 0)


def sparse(dim: int, folder: str, counts: Sequence[int] = ROWS, rounds: int = ROUNDS) -> list[Row]:
    """A pull and a push of some rows of a table, beside an empty Ray call and the arithmetic alone in this process."""
    server = Server(0, 1, folder, (TABLE_ROWS, dim))
    endpoint = Endpoint(server.layout, server.coordinator)
    here = TableOptimizer(np.zeros((TABLE_ROWS, dim), np.float32), OptimizerOptions())
    call, reference = empty_call(), "empty_call_and_arithmetic"
    pushes, rows = 0, []
    for count in counts:
        side = _Rows(count, dim)
        found = _paired(
            {
                "psdevise": lambda side=side: arithmetic.seconds(lambda: side.through(endpoint), 10) * 1e3,  # type: ignore[misc]
                reference: lambda side=side: (  # type: ignore[misc]
                    (arithmetic.seconds(call, 10) + arithmetic.seconds(lambda: side.alone(here), 10)) * 1e3
                ),
            },
            rounds,
        )
        pushes += side.pushes
        errors = abs(pushes - server.counts("applied"))
        case = f"{count} rows of {dim}"
        rows += _beside(found, "psdevise", reference, case, "push_pull_time", "ms", errors)
        speed = Rounds({"psdevise": [count / t * 1e3 for t in found["psdevise"]]}, {"psdevise": errors})
        rows += speed.rows("wire", case, "rows_per_second", "1/s", "psdevise")
    server.end()
    return rows


class _Rows:
    """A gradient of `count` rows, and others' rows each time."""

    def __init__(self, count: int, dim: int) -> None:
        self._gradient = np.ones((count, dim), np.float32)
        draw = np.random.default_rng(0)
        self._ids = [np.sort(draw.choice(TABLE_ROWS, count, replace=False)) for _ in range(8)]
        self.pushes = 0

    def through(self, endpoint: Endpoint) -> None:
        ids = self._ids[self.pushes % len(self._ids)]
        endpoint.pull({"rows": ids})
        endpoint.push({"rows": (ids, self._gradient)})
        self.pushes += 1

    def alone(self, table: TableOptimizer) -> None:
        ids = self._ids[self.pushes % len(self._ids)]
        table.values[ids].copy()
        table.step(ids, self._gradient, 1.0)


def _paired(acts: Mapping[str, Callable[[], float]], rounds: int) -> Mapping[str, Sequence[float]]:
    for act in acts.values():  # first calls, first pages
        act()
    return paired({name: _numbered(act) for name, act in acts.items()}, rounds).values


def _numbered(act: Callable[[], float]) -> Callable[[int], float]:
    return lambda number: act()


def _beside(
    values: Mapping[str, Sequence[float]], side: str, reference: str, case: str, metric: str, unit: str, errors: int
) -> list[Row]:
    chosen = {"psdevise": values[side], reference: values[reference]}
    return Rounds(chosen, {"psdevise": errors}).rows("wire", case, metric, unit, reference)
