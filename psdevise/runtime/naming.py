"""Bulk prediction over a cluster: a process per worker, each naming one part of the table at a time.

A worker that dies gives its part back. A part is a file, written whole, so one that was named twice is there once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from psdevise.errors import WorkerLost
from psdevise.evaluation.bulk import Bulk, Prediction
from psdevise.runtime.cluster import check_resources, connect
from psdevise.runtime.failures import cause
from psdevise.runtime.job import ClusterOptions
from psdevise.tagger import Tagger


class NamingActor:
    """Names parts of one prediction; loads the tagger with the first."""

    def __init__(self, make: Callable[[], Tagger], prediction: Prediction, threads: int) -> None:
        torch.set_num_threads(max(1, threads))
        self._make, self._prediction = make, prediction
        self._bulk: Bulk | None = None

    def name(self, start: int) -> int:
        if self._bulk is None:
            self._bulk = Bulk(self._make(), self._prediction)
        return self._bulk.name(start)


def predict_on_cluster(
    make: Callable[[], Tagger],
    prediction: Prediction,
    cluster: ClusterOptions,
    on_progress: Callable[[int, int], None],
    on_death: Callable[[str], None] = lambda reason: None,
) -> int:
    """Names every picture of the table with `cluster.num_workers` processes. Returns the rows written.

    Args:
        make: the tagger, made anew in every worker; table, run and output lie where all nodes see them.
        on_progress: called with the pictures named, also by an earlier try, and all of them.
        on_death: called when a worker has died and its part goes to others.

    Raises:
        ConfigError: parts of another prediction lie there.
        ResourceError: the cluster lacks the CPUs.
        WorkerLost: more than `cluster.max_restarts` deaths.
    """
    bulk = Bulk(make(), prediction)
    left = bulk.begin()[::-1]
    done = bulk.rows - sum(min(prediction.part_rows, bulk.rows - start) for start in left)
    if not left:
        return bulk.finish()
    connect(cluster, namespace="psdevise-naming")
    check_resources(cluster)

    def worker() -> Any:
        options = {"num_cpus": cluster.cpus_per_worker, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(NamingActor).options(**options)
        return actor.remote(make, prediction, int(cluster.cpus_per_worker))

    deaths = 0
    busy: dict[Any, tuple[Any, int]] = {}  # the call under way → worker, part
    idle = [worker() for _ in range(min(cluster.num_workers, len(left)))]
    try:
        while left or busy:
            while idle and left:
                actor, start = idle.pop(), left.pop()
                busy[actor.name.remote(start)] = actor, start
            (ref,), _ = ray.wait(list(busy))
            actor, start = busy.pop(ref)
            try:
                done += ray.get(ref)
                idle.append(actor)
                on_progress(done, bulk.rows)
            except RayTaskError as e:
                raise cause(e) from e
            except RayError as e:
                deaths += 1
                reason = str(e).splitlines()[0]
                if deaths > cluster.max_restarts:
                    raise WorkerLost(f"{deaths} workers died; the last: {reason}", where="prediction") from e
                on_death(reason)
                left.append(start)
                idle.append(worker())
    finally:
        for actor in [*idle, *(actor for actor, _ in busy.values())]:
            ray.kill(actor)
    return bulk.finish()
