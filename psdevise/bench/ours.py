"""psdevise's side of a contest, as a program of its own: one job as `psdevise run` would train it.

    python -m psdevise.bench.ours SPECIFICATION.json

The specification names case, workers, n, gate, folder and result; the result is a JSON object with `errors`, what they
are made of, and the time of an empty Ray call.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import ceil
from typing import Any

from psdevise import store
from psdevise.bench import machine
from psdevise.bench.gate import Gate
from psdevise.bench.tasks import CASES, FIRST, INITIAL_ACCUMULATOR, LAST, RATE, applied, gated_task
from psdevise.bench.timers import TimerTask
from psdevise.errors import Interrupted
from psdevise.events import Event, Progress, Restarted
from psdevise.runtime.actor import empty_call
from psdevise.runtime.cluster import disconnect
from psdevise.runtime.job import ClusterOptions, Host, Job
from psdevise.runtime.training import OnRay
from psdevise.server import snapshot
from psdevise.server.layout import Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.task import Task

SLICES, EPOCHS = 20, 400
# Clocks go on while the others have their turns, so that waits and leases, which cost nothing per step, are long.
PATIENCE = 3600.0
SNAPSHOT_SECONDS = 60.0


@dataclass(frozen=True)
class Specification:
    """
    Args:
        case: a model of `tasks.CASES`, or `timer`: `megabytes` of parameters, and a step is a wait of as many
            microseconds as the gate's setting.
        n: n_fetch = n_push.
        sides: how many systems take turns.
    """

    case: str
    workers: int
    sides: int
    gate: str
    folder: str
    result: str
    n: int = 1
    shards: int = 1
    megabytes: float = 0.0


def make_task(specification: Specification) -> Task:
    gate = Gate(specification.gate)
    if specification.case == "timer":
        return TimerTask(specification.megabytes, gate, torn=specification.shards == 1)
    return gated_task(CASES[specification.case], gate, specification.n, SLICES, EPOCHS)


def make_job(specification: Specification, host: str = "ray") -> Job:
    """Everything is as it is by default but for the clocks: a snapshot a minute of this system's own time."""
    n = specification.n
    return Job(
        run=f"bench-{os.getpid()}",
        phase="bench",
        build=partial(make_task, specification),
        snapshots=store.join(specification.folder, "snapshots"),
        incarnations=store.join(specification.folder, "incarnations.json"),
        seed=0,
        phase_number=0,
        cluster=ClusterOptions(
            host=host,  # type: ignore[arg-type]
            num_workers=specification.workers,
            num_shards=specification.shards,
            lease_seconds=PATIENCE,
            snapshot_seconds=SNAPSHOT_SECONDS * specification.sides,
            snapshot_share=1.0,
        ),
        downpour=DownpourOptions(n_fetch=n, n_push=n, local_step="adagrad" if n > 1 else "none", deadline=PATIENCE),
        optimizer=OptimizerOptions(rate=RATE, initial_accumulator=INITIAL_ACCUMULATOR),
    )


@dataclass
class Seen:
    """What the job's own events say at its end."""

    counts: Counter[str] = field(default_factory=Counter)
    lags: Counter[int] = field(default_factory=Counter)
    restarts: int = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Restarted):
            self.restarts += 1
        if isinstance(event, Progress):
            self.counts = sum((Counter(s["counts"]) for s in event.shards), Counter())
            self.lags = sum((Counter(s["lags"]) for s in event.shards), Counter())


def train(specification: Specification, job: Job, host: Host) -> dict[str, Any]:
    """Trains until the gate is finished; counts what went wrong."""
    gate, seen = Gate(specification.gate), Seen()
    with suppress(Interrupted):
        host.train(job, seen, gate)
    return audit(specification, job, gate, seen)


def audit(specification: Specification, job: Job, gate: Gate, seen: Seen) -> dict[str, Any]:
    """Every gradient that a worker computed must be in the parameters, once: by the shard's own count, and by the
    marks in the last snapshot."""
    found = snapshot.last_good(job.snapshots)
    assert found is not None
    layout = replace(Layout.from_plain(found[0]["layout"]), shards=1)
    sums = snapshot.load_for(job.snapshots, found[0], layout, 0).tensors["optimizer.sum"]
    pushed, left = divmod(gate.total, specification.n)
    counted = seen.counts["applied"] / specification.shards
    marks = [layout.offsets[name] for name in (FIRST, LAST)]
    parts = {
        "computed_not_pushed": left,
        "pushed_not_counted": ceil(abs(pushed - counted)),
        "pushed_not_in_first_parameters": abs(pushed - applied(sums[marks[0][0]], specification.n)),
        "pushed_not_in_last_parameters": abs(pushed - applied(sums[marks[1][0]], specification.n)),
        "torn_pulls": gate.wrong,
        "restarts": seen.restarts,
        "refused_or_repeated": sum(v for k, v in seen.counts.items() if k != "applied"),
    }
    lag = sum(k * v for k, v in seen.lags.items()) / max(1, seen.lags.total())
    return {"errors": sum(parts.values()), "parts": parts, "pushed": pushed, "lag": lag}


def audit_counts(gate: Gate, seen: Seen) -> int:
    """Gradients (a push each) that one shard's own counts do not account for."""
    other = sum(v for k, v in seen.counts.items() if k != "applied")
    return abs(gate.total - seen.counts["applied"]) + gate.wrong + seen.restarts + other


def main(path: str) -> None:
    specification = Specification(**store.read_json(path))
    found = train(specification, make_job(specification), OnRay())
    found["empty_call"] = asdict(machine.empty_call("", empty_call()))
    disconnect()
    store.write_json(specification.result, found)


if __name__ == "__main__":
    # What is sent to actors is found there by its module's name, and this module's is not __main__.
    from psdevise.bench import ours

    ours.main(sys.argv[1])
