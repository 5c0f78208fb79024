"""Costs from what `psdevise bench scale --json FILE` measured with 1 and 2 workers and 1 shard, and from what the same
run measured of the machine itself (memcpy, Adagrad, a Ray call); the other points are there to be predicted.

    step = median over the points of (W / rate − wait) − what the simulated pull takes
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from psdevise import store
from psdevise.errors import BenchmarkFailed, DataError
from psdevise.simulation.options import CostOptions, HostOptions, ModelOptions, SimulateOptions
from psdevise.simulation.scale import simulate

MEGABYTES = 16.0  # of the benchmark's model
MACHINE_GB = 16 * 2**20 / 1e9  # of its memcpy and its Adagrad
CORES = 2
TURN_SECONDS, WARM_UP = 5.0, 2
KNOWN_WORKERS, KNOWN_SHARDS = (1, 2), (1,)
MEDIAN_ALLOWED, ANY_ALLOWED = 0.15, 0.30
CHECK_OF_UPDATE = 0.13  # looking through a gradient, beside applying it
# What `psdevise bench scale` calls its rows; files without the last three leave those costs as they are by default.
COPY, UPDATE, CALL = "memcpy of 16 MB", "fused Adagrad on 16 MB", "call CPU, both sides"
SERVE, MESSAGE, STREAMS = "a push, the shard's side", "a push, the worker's side", "cores that memory feeds"
CASE = re.compile(r"W=(\d+) shards=(\d+)(?: (\d+) ms)?")


@dataclass(frozen=True)
class Point:
    """One number of workers and shards and one step time, in seconds; `rate`: steps per second of all workers."""

    workers: int
    shards: int
    wait: float
    rate: float

    @property
    def known(self) -> bool:
        """Whether costs are taken from it."""
        return self.workers in KNOWN_WORKERS and self.shards in KNOWN_SHARDS


@dataclass(frozen=True)
class Measured:
    """What the file holds. `machine`: name → seconds. `lags`: (workers, shards) → mean lag in updates. `streams`: cores
    that the memory feeds, if that was measured."""

    points: list[Point]
    lags: dict[tuple[int, int], float]
    machine: dict[str, float]
    streams: float | None = None


@dataclass(frozen=True)
class Prediction:
    point: Point
    rate: float
    lag: float

    @property
    def error(self) -> float:
        """Relative, signed: above 0 where more was predicted than measured."""
        return self.rate / self.point.rate - 1


def read(path: str) -> Measured:
    """
    Raises:
        DataError: the file is not one of `psdevise bench scale`.
        StoreError: it cannot be read.
    """
    rows = store.read_json(path)
    try:
        return _measured(rows)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise DataError(
            f"no figures of bench scale: {e!r}", where=path, mend=f"psdevise bench scale --json {path}"
        ) from e


def costs(measured: Measured) -> CostOptions:
    """What the known points and the machine's own figures say; everything else stays as it is by default.

    Raises:
        DataError: there is no point with 1 worker and 1 shard, or the machine's figures are not all there.
    """
    try:
        copy, update = (measured.machine[name] / MACHINE_GB for name in (COPY, UPDATE))
        call = measured.machine[CALL] / 2
    except KeyError as e:
        raise DataError(f"the row {e} of case machine is not there", where="bench scale") from e
    known = [p for p in measured.points if p.known]
    if not known:
        raise DataError("no point with 1 or 2 workers and 1 shard", where="bench scale")
    found = replace(CostOptions(), copy_gb=copy, update_gb=update, check_gb=CHECK_OF_UPDATE * update, call=call)
    found = replace(
        found, serve=measured.machine.get(SERVE, found.serve), message=measured.machine.get(MESSAGE, found.message)
    )
    left = median(p.workers / p.rate - p.wait for p in known) - copy * MEGABYTES / 1e3 - found.message
    return replace(found, step=max(0.0, left))


def options_of(point: Point, prices: CostOptions, streams: float | None = None) -> SimulateOptions:
    """The benchmark's own turn, simulated."""
    hosts = HostOptions(together=True, cores=CORES)
    return SimulateOptions(
        workers=point.workers,
        shards=point.shards,
        steps=1,
        warm_up=WARM_UP,
        seconds=TURN_SECONDS,
        snapshot_seconds=1e6,
        model=ModelOptions(dense_mb=MEGABYTES),
        costs=replace(prices, compute=point.wait),
        hosts=hosts if streams is None else replace(hosts, streams=streams),
    )


def predict(measured: Measured, on_progress: Callable[[int, int], None] = lambda done, of: None) -> list[Prediction]:
    """All points, simulated with the costs of the known ones."""
    found, prices = [], costs(measured)
    for i, point in enumerate(measured.points):
        on_progress(i, len(measured.points))
        outcome = simulate(options_of(point, prices, measured.streams))
        found.append(Prediction(point, outcome.steps_per_second, outcome.lag))
    on_progress(len(measured.points), len(measured.points))
    return found


def errors(predictions: Sequence[Prediction]) -> tuple[float, float]:
    """Median and largest absolute relative error of the points that no cost was taken from."""
    sizes = [abs(p.error) for p in predictions if not p.point.known]
    if not sizes:
        raise DataError("no point with more workers or shards to compare with", mend="psdevise bench scale --full")
    return median(sizes), max(sizes)


def check(predictions: Sequence[Prediction]) -> None:
    """
    Raises:
        BenchmarkFailed: the predictions are worse than they may be.
    """
    middle, worst = errors(predictions)
    if middle > MEDIAN_ALLOWED or worst > ANY_ALLOWED:
        raise BenchmarkFailed(
            f"median error {middle:.1%}, largest {worst:.1%}; allowed are {MEDIAN_ALLOWED:.0%} and {ANY_ALLOWED:.0%}",
            where="calibration",
            mend="measure again on a quiet machine; else a cost is missing in psdevise/simulation/one_host.py",
        )


def _measured(rows: Sequence[Mapping[str, Any]]) -> Measured:
    points, lags, machine, streams = [], {}, {}, None
    for row in rows:
        case = CASE.fullmatch(row["case"])
        if row["case"] == "machine" and row["metric"] == "milliseconds":
            machine[row["system"]] = float(row["value"]) / 1e3
        elif row["case"] == "machine" and row["system"] == STREAMS:
            streams = float(row["value"])
        elif case is None or row["system"] != "psdevise":
            continue
        elif row["metric"] == "steps_per_second":
            point = Point(int(case[1]), int(case[2]), int(case[3]) / 1e3, float(row["value"]))
            if point not in points:
                points.append(point)
        elif row["metric"] == "lag":
            lags[int(case[1]), int(case[2])] = float(row["value"])
    return Measured(points, lags, machine, streams)
