"""What scale, straggler, memory and converge make of what they see: against counts by hand."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from psdevise.bench import converge, handling, memory, ours, scale, straggler
from psdevise.bench.gate import Gate
from psdevise.bench.table import Context
from psdevise.bench.timers import RECORD, TimerTask, losses_of, write_step
from psdevise.errors import BenchmarkFailed, ConfigError
from psdevise.events import Listener
from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import Interrupt, Job, Trained
from psdevise.worker.downpour import DownpourOptions
from tests.bench.test_gate import until


class Watched(InProcess):
    """Asks for Ctrl-C all the while, as the driver of a cluster does; this host asks only between its steps."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained:
        ended = threading.Event()

        def ask() -> None:
            while not ended.wait(0.005):
                interrupt.is_set()

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            return super().train(job, on_event, interrupt)
        finally:
            ended.set()
            thread.join(20)


# ------------------------------------------------------------------ scale


def test_what_a_push_costs_and_memory_feeds_is_measured() -> None:
    worker, shards = handling._push(1, 20)
    assert 1e-5 < worker < 0.1
    assert 1e-5 < shards < 0.1
    assert 1.0 <= handling.streams(0.05) <= 2.0


def test_the_bound_is_the_least_of_workers_cores_and_shards() -> None:
    costs = scale.Costs(call=0.001, memcpy=0.002, adagrad=0.006)
    assert costs.bound(2, 1, one=5.0) == 10.0
    assert costs.bound(1000, 100, one=5.0, cores=2) == pytest.approx(2 / 0.010)
    assert costs.bound(1000, 1, one=5.0, cores=100) == pytest.approx(1 / 0.007)
    assert costs.bound(1000, 2, one=5.0, cores=100) == pytest.approx(1 / 0.004)


def test_a_timer_s_job_waits_and_is_counted_like_any_other(tmp_path: Path) -> None:
    gate = Gate.create(str(tmp_path / "gate"), 1)
    specification = ours.Specification(
        "timer", 1, 1, gate.path, str(tmp_path), str(tmp_path / "result"), shards=2, megabytes=0.01
    )

    def contest() -> None:
        gate.open(0.3, setting=20_000)
        until(lambda: gate.ended)
        gate.finish()

    thread = threading.Thread(target=contest, daemon=True)
    thread.start()
    found = ours.train(specification, ours.make_job(specification, host="inprocess"), InProcess())
    thread.join(20)
    assert found["parts"] == dict.fromkeys(found["parts"], 0)
    assert 2 <= found["pushed"] <= 0.3 / 0.02 + 3
    assert found["lag"] <= 1
    assert sum(p.size for p in TimerTask(0.01, gate, torn=True).layout.dense) == 2500


# ------------------------------------------------------------------ straggler


def test_the_target_is_reached_where_the_moving_mean_is_down(tmp_path: Path) -> None:
    log, w = str(tmp_path / "log"), straggler.WINDOW
    assert straggler.seconds_to(1.0, log) is None
    with open(log, "wb") as f:
        for i in range(3 * w):
            f.write(RECORD.pack(i * 10**9, 2.0 if i < w else 0.5))
        f.write(b"half a rec")
    # After w steps of 2.0, each of 0.5 takes 1.5 / w off the mean: it is 1.0 after two thirds of them.
    assert straggler.seconds_to(1.0, log) == w + 2 * w // 3 - 1
    assert straggler.seconds_to(0.4, log) is None


def test_a_run_is_timed_from_its_first_step_to_the_target(tmp_path: Path) -> None:
    plan = straggler.Plan(seconds=0.0, slow_seconds=0.0, target=2.2, limit=60.0)
    taken, errors = straggler.measure(straggler.Side(1, 0, False), plan, 0, Watched())
    assert 0 < taken < 60
    assert errors == 0
    with pytest.raises(BenchmarkFailed, match="not reached"):
        straggler.measure(straggler.Side(1, 0, False), straggler.Plan(0.0, 0.0, -1.0, 0.2), 0, Watched())


def test_losses_of_several_writers_are_whole(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    threads = [threading.Thread(target=lambda: [write_step(log, 1.5) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    steps = losses_of(log)
    assert len(steps) == 800
    assert {loss for _, loss in steps} == {1.5}


# ------------------------------------------------------------------ memory


def test_levels_leave_out_the_base_and_tell_training_from_snapshots() -> None:
    steps = [float(i) for i in range(101)]
    steps[51:] = [s + 0.5 for s in steps[51:]]  # one step, in the snapshot, took half a second longer
    size = 2_000_000
    samples = memory.Samples(snapshots=[(50.1, 51.2)], held_up={0.02, 0.03, 0.04}, steps=steps, driver_before=500)
    for role, base in (("server", 1000), ("worker", 1000), ("driver", 500)):
        samples.pss[role] = [(t, base + (5 if 50.1 <= t <= 51.2 else 3) * size) for t in np.arange(0, 100, 0.25)]
    samples.store = [(t, size) for t in np.arange(0, 100, 0.25)]
    rows = {(r.system, r.metric): r for r in memory.levels(memory.Plan(2.0, 0, 0.0), samples, 1000)}
    for role in memory.NUMBERS:
        assert rows[role, "memory_training"].value == pytest.approx(3)
        assert rows[role, "memory_snapshot"].value == pytest.approx(5)
    assert rows["object_store", "memory_training"].value == pytest.approx(1)
    assert rows["server", "update_pause"].value == pytest.approx(30)
    assert rows["worker", "longest_step_beyond_median"].value == pytest.approx(500)
    samples.snapshots = []
    with pytest.raises(BenchmarkFailed, match="no snapshot"):
        memory.levels(memory.Plan(2.0, 0, 0.0), samples, 1000)


def test_growth_is_in_bytes_per_step() -> None:
    samples = memory.Samples(steps=[i / 10 for i in range(1001)])
    for role in memory.NUMBERS:
        samples.pss[role] = [(t, int(1e6 + 70 * t)) for t in np.arange(0, 100, 0.5)]  # 7 bytes a step
    rows = memory.growth(memory.Plan(1.0, 1000, 60.0), samples)
    assert [r.value for r in rows] == pytest.approx([7.0] * 3, rel=0.02)


def test_pss_is_of_a_process_and_0_of_none() -> None:
    rss = psutil.Process().memory_info().rss
    assert 0.2 * rss < memory.pss(os.getpid()) <= 1.1 * rss
    assert memory.pss(2**22 + 1) == 0


def test_a_job_is_watched_to_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "object_store_bytes", lambda: 0)
    plan = memory.Plan(1.0, 60, 0.1)
    samples = memory.measure(plan, Watched())
    assert samples.errors == 0
    assert len(samples.steps) >= 60
    assert samples.snapshots == [] or samples.snapshots[0][0] < samples.snapshots[0][1]
    assert samples.pss["driver"]


# ------------------------------------------------------------------ converge


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """Pictures of three colours with noise: any model learns them."""
    rng, data, labels = np.random.default_rng(0), [], []
    for i in range(400):
        pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, i % 3] += 100
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        data.append(out.getvalue())
        labels.append(["red", "green", "blue"][i % 3])
    pq.write_table(pa.table({"image": data, "label": labels}), path := str(tmp_path / "pictures.parquet"))
    return path


SMALL = converge.Plan(train=256, held_out=64, epochs=1, seeds=2, workers=(1, 2), intervals=(1, 8))


def test_held_out_losses_stand_beside_one_process(pictures: str, tmp_path: Path) -> None:
    classes = converge.prepare(pictures, SMALL, str(tmp_path))
    assert classes == 3
    ended: list[str] = []
    rows = converge.measure("mlp", classes, SMALL, str(tmp_path), InProcess(), done=ended.append)
    assert len(ended) == 2 * (1 + 4)
    cases = [r.case for r in rows if r.system == "psdevise" and r.metric == "held_out_loss"]
    assert cases == ["mlp W=1 n=1", "mlp W=1 n=8", "mlp W=2 n=1", "mlp W=2 n=8"]
    assert all(r.errors == 0 for r in rows)
    assert all(0 < r.value < 5 for r in rows)


def test_what_was_not_applied_once_is_an_error(pictures: str, tmp_path: Path) -> None:
    class Losing(InProcess):
        def train(self, *arguments: Any) -> Trained:
            trained = super().train(*arguments)
            return Trained(trained.parameters, trained.audit | {"finished": trained.audit["finished"] - 3}, {})

    plan = converge.Plan(train=128, held_out=64, epochs=1, seeds=1, workers=(1,), intervals=(1,))
    classes = converge.prepare(pictures, plan, str(tmp_path))
    rows = converge.measure("mlp", classes, plan, str(tmp_path), Losing())
    assert {r.errors for r in rows if r.system == "psdevise"} == {3}


def test_one_process_sees_the_batches_of_a_worker(pictures: str, tmp_path: Path) -> None:
    """With staleness 0 a worker's result is one process's, bit for bit; so the two have the same data."""
    plan = converge.Plan(train=128, held_out=64, epochs=1)
    classes = converge.prepare(pictures, plan, str(tmp_path))
    build: Callable[[], Any] = lambda: converge.make_task("cnn32", classes, plan, str(tmp_path), 3)  # noqa: E731
    alone = converge.one_process(build(), 3)

    class Synchronous(InProcess):
        def train(self, job: Any, *arguments: Any) -> Trained:
            return super().train(replace(job, downpour=DownpourOptions(staleness=0)), *arguments)

    trained, errors = converge.train(build, plan, 1, 1, 3, str(tmp_path), Synchronous())  # type: ignore[arg-type]
    assert errors == 0
    for name, value in alone.items():
        np.testing.assert_array_equal(trained[name], value)


def test_without_pictures_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSDEVISE_DATA", "/nowhere")
    with pytest.raises(ConfigError, match="--images"):
        converge.images_of(Context())
    assert converge.images_of(Context(images=__file__)) == __file__
