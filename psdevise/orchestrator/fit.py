"""One task trained on the run's host, for any phase."""

from __future__ import annotations

import os
from collections.abc import Callable

from psdevise import store
from psdevise.events import Notice
from psdevise.orchestrator.graph import Context
from psdevise.orchestrator.options import RunOptions
from psdevise.runtime.job import Job, Trained
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.task import Task

NUMBERS = {"language": 1, "visual": 2, "projection": 3, "fine-tuning": 4}


def fit(
    options: RunOptions,
    context: Context,
    phase: str,
    build: Callable[[], Task],
    snapshots: str,
    downpour: DownpourOptions,
    optimizer: OptimizerOptions,
    unit: str = "examples",
    number: int | None = None,
) -> Trained:
    """Trains one task on the run's host; what it cost is added to the phase's bill."""
    job = Job(
        run=context.run,
        phase=phase,
        build=build,
        snapshots=snapshots,
        incarnations=context.incarnations,
        seed=options.seed,
        phase_number=number or NUMBERS[phase],
        cluster=options.cluster,
        downpour=downpour,
        optimizer=optimizer,
        unit=unit,
        logs=_logs(context.folder),
    )
    trained = context.host.train(job, context.on_event, context.interrupt)
    bill = context.bills.setdefault(phase, {})
    for key, value in trained.bill.items():
        bill[key] = max(bill.get(key, 0.0), value) if key.startswith("peak") else bill.get(key, 0.0) + value
    if trained.audit["refused"]:
        context.on_event(Notice(phase, f"{trained.audit['refused']} examples were refused by the shards"))
    return trained


def _logs(folder: str) -> str:
    """Absolute, since actors have a working directory of their own."""
    path = store.join(folder, "logs")
    return os.path.abspath(store.filesystem(path)[1]) if store.is_local(path) else ""
