"""From the coordinator's status to Progress events: rates over the last seconds, time left, the bill."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from psdevise.events import Listener, Notice, Progress, WorkerFigures
from psdevise.runtime.job import Job

WINDOW_SECONDS = 5.0
EVERY_SECONDS = 0.5


class Meter:
    """Emits a Progress event every half second."""

    def __init__(self, job: Job, on_event: Listener, epochs: int) -> None:
        self._job, self._on_event, self._epochs = job, on_event, epochs
        self._begin = time.monotonic()
        self._shown = 0.0
        self._first: float | None = None
        self._window: deque[tuple[float, dict[str, float]]] = deque()
        self._warned = False
        self.peak_bytes: dict[str, float] = {}

    def show(self, status: dict[str, Any], shards: list[dict[str, Any]], last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._shown < EVERY_SECONDS:
            return
        self._shown = now
        total = status["total"]
        self._window.append((now, total))
        while self._window[0][0] < now - WINDOW_SECONDS:
            self._window.popleft()
        if self._first is None:
            self._first = status["progress"]
        then, before = self._window[0]
        unit = self._job.unit
        count = total.get(unit, 0.0) - before.get(unit, 0.0)
        seconds = max(now - then, 1e-9)
        examples = total.get("examples", 0.0) - before.get("examples", 0.0)
        loss = (total.get("loss", 0.0) - before.get("loss", 0.0)) / examples if examples else None
        done, gained = status["progress"], status["progress"] - self._first
        left = (now - self._begin) * (1 - done) / gained if gained > 0 else None
        figures = tuple(
            WorkerFigures(rank, w["steps"], w["figures"], w["gauges"] | {"silent_seconds": w["silent"]})
            for rank, w in sorted(status["workers"].items())
        )
        lags = [f.gauges["lag"] for f in figures if "lag" in f.gauges]
        # A worker reports the multiplier of its last step, so the furthest has the phase's.
        multipliers = [(f.steps, f.gauges["rate"]) for f in figures if "rate" in f.gauges]
        self._on_event(
            Progress(
                phase=self._job.phase,
                done=done,
                count=total.get(unit, 0.0),
                rate=count / seconds if len(self._window) > 1 else 0.0,
                loss=loss,
                lag=sum(lags) / len(lags) if lags else None,
                workers=len(figures),
                epoch=min(status["epoch"] + 1, self._epochs),
                left=left,
                bytes=total.get("bytes_pulled", 0.0) + total.get("bytes_pushed", 0.0),
                leases=status["leases"],
                audit=status["audit"],
                learning_rate=self._job.optimizer.rate * max(multipliers)[1] if multipliers else None,
                figures=figures,
                shards=tuple(shards),
            )
        )
        self._warn_of_the_wire(total)

    def bill(self) -> dict[str, float]:
        """core_seconds and gpu_seconds reserved, bytes moved, and the time workers computed and waited."""
        seconds = time.monotonic() - self._begin
        cluster, total = self._job.cluster, self._window[-1][1] if self._window else {}
        cores = cluster.num_workers * cluster.cpus_per_worker + cluster.num_shards * cluster.cpus_per_shard
        gpu_workers = cluster.num_workers if cluster.gpu_workers is None else cluster.gpu_workers
        return {
            "core_seconds": seconds * cores,
            "gpu_seconds": seconds * gpu_workers * cluster.gpus_per_worker,
            "bytes": total.get("bytes_pulled", 0.0) + total.get("bytes_pushed", 0.0),
            "compute_seconds": total.get("compute_seconds", 0.0),
            "wire_seconds": total.get("wire_seconds", 0.0),
            "read_seconds": total.get("read_seconds", 0.0),
            "idle_seconds": total.get("idle_seconds", 0.0),
            "units": total.get(self._job.unit, 0.0),
        } | {f"peak_bytes_{role}": value for role, value in self.peak_bytes.items()}

    def _warn_of_the_wire(self, total: dict[str, float]) -> None:
        """Once: when waiting for fetches and pushes takes longer than computing."""
        compute, wire = total.get("compute_seconds", 0.0), total.get("wire_seconds", 0.0)
        if self._warned or total.get("steps", 0.0) < 50 or wire <= compute or compute <= 0:
            return
        self._warned = True
        options = self._job.downpour
        n = -(-int(1000 * wire / compute * max(options.n_fetch, options.n_push)) // 1000)
        self._on_event(
            Notice(
                self._job.phase,
                f"fetch and push take {wire / compute:.1f} x the time of computing;"
                f" n_fetch: {n}, n_push: {n} (with local_step: adagrad) would hide them",
            )
        )
