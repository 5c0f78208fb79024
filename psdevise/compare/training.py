"""Trains a task of a comparison: the in-process host drives the same Downpour workers and shards as the product."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.events import Event
from psdevise.phases.joint import ProjectionOptions
from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import ClusterOptions, Job
from psdevise.systems.recipe import Train
from psdevise.worker.task import Task

CLUSTER = ClusterOptions(host="inprocess", snapshot_seconds=3600.0)


def trainer(seed: int, workers: int = 2) -> Train:
    """What `Lesson.train` is in a comparison. A cell that was stopped begins anew."""

    def train(
        build: Callable[[], Task], options: ProjectionOptions, folder: str
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        under_way = store.join(folder, "training")
        store.remove(under_way)
        job = Job(
            run="compare",
            phase="projection",
            build=build,
            snapshots=store.join(under_way, "snapshots"),
            incarnations=store.join(under_way, "incarnations.json"),
            seed=seed,
            phase_number=3,
            cluster=replace(CLUSTER, num_workers=workers),
            downpour=options.downpour,
            optimizer=options.optimizer,
        )
        trained = InProcess().train(job, _ignore, threading.Event())
        store.remove(under_way)
        return trained.parameters

    return train


def _ignore(event: Event) -> None:
    """A comparison shows its own progress, by cells."""
