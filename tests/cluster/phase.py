"""A small visual phase on the cluster at RAY_ADDRESS, as a program of its own: what `psdevise run` does with one phase.

    python -m tests.cluster.phase FOLDER

FOLDER/job.json: {"cluster": {}, "downpour": {}, "epochs": 1, "seconds": of a step}.

Writes `events.jsonl` as it goes and `done.json` at its end: {"audit": …} or {"error": name of the class, "text": …}.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from psdevise.config import build
from psdevise.errors import PsdeviseError
from psdevise.events import Event
from psdevise.runtime.job import ClusterOptions, Job
from psdevise.runtime.training import OnRay
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask

SLICES, BATCHES, BATCH = 40, 3, 4
ROWS = SLICES * BATCHES * BATCH  # of an epoch
KINDS = 5


def task(epochs: int, seconds: float) -> ModuleTask:
    """Pictures of noise in a shade that tells their kind; a step takes `seconds`, as on an accelerator."""
    torch.manual_seed(0)
    core = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 200), nn.ReLU())

    def loss(
        module: nn.Module, batch: tuple[Tensor, Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        begin = time.monotonic()
        value = nn.functional.cross_entropy(module(batch[0]), batch[1])
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
        return value, {"examples": float(len(batch[1])), "loss": float(value.detach()) * len(batch[1])}

    def read(start: int, stop: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(start, stop, BATCH):
            kinds = rng.integers(KINDS, size=BATCH)
            pictures = rng.standard_normal((BATCH, 3, 16, 16)).astype(np.float32) + kinds[:, None, None, None]
            yield torch.from_numpy(pictures.astype(np.float32)), torch.from_numpy(kinds)

    step = BATCHES * BATCH
    slices = [(i * step, (i + 1) * step) for i in range(SLICES)]
    return ModuleTask(nn.Sequential(core, nn.Linear(200, KINDS)), loss, read, slices, epochs)


def main(folder: Path) -> None:
    asked = json.loads((folder / "job.json").read_text())
    job = Job(
        run=folder.name,
        phase="visual",
        build=partial(task, asked["epochs"], asked["seconds"]),
        snapshots=str(folder / "snapshots"),
        incarnations=str(folder / "incarnations.json"),
        seed=1,
        phase_number=2,
        cluster=build(ClusterOptions, asked["cluster"]),
        downpour=build(DownpourOptions, asked["downpour"]),
        optimizer=OptimizerOptions(rate=0.01),
        logs=str(folder / "logs"),
    )
    with open(folder / "events.jsonl", "w", buffering=1) as file:

        def on_event(event: Event) -> None:
            file.write(json.dumps({"event": type(event).__name__, "time": time.time(), **asdict(event)}) + "\n")

        try:
            done = {"audit": OnRay().train(job, on_event, threading.Event()).audit}
        except PsdeviseError as e:
            done = {"error": type(e).__name__, "text": str(e)}
    (folder / "done.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
