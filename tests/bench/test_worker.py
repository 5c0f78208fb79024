"""The training-speed benchmark at tiny sizes: what it counts, what it calls an error, and how it treats processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from psdevise.bench import ours, tasks, worker
from psdevise.bench.contest import Program, System, _session
from psdevise.bench.gate import Gate
from psdevise.bench.table import check
from psdevise.bench.worker import Plan, measure, plans, programs
from psdevise.errors import BenchmarkFailed
from psdevise.runtime.inprocess import InProcess
from psdevise.server.protocol import Ack, Pulled
from psdevise.server.shard import Shard

TINY = tasks.Case(lambda: tasks.nn.Linear(8, 3), (8,), 3, batch=4, slice_batches=16)


def train_in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, n: int = 1) -> dict[str, Any]:
    """One worker's job for a turn, as the contest drives it, without Ray."""
    monkeypatch.setitem(tasks.CASES, "tiny", TINY)
    gate = Gate.create(str(folder / "gate"), 1)
    specification = ours.Specification("tiny", 1, 1, gate.path, str(folder), str(folder / "result"), n=n)

    def contest() -> None:
        for seconds in (0.0, 0.3):
            gate.open(seconds)
            end = time.monotonic() + 20
            while not gate.ended and time.monotonic() < end:
                time.sleep(0.001)
        gate.finish()

    thread = threading.Thread(target=contest, daemon=True)
    thread.start()
    found = ours.train(specification, ours.make_job(specification, host="inprocess"), InProcess())
    thread.join(20)
    return found


@pytest.mark.parametrize("n", [1, 8])
def test_every_gradient_is_found_again_in_the_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    found = train_in_process(tmp_path, monkeypatch, n)
    assert found["parts"] == dict.fromkeys(found["parts"], 0)
    assert found["errors"] == 0
    assert found["pushed"] > 2


def test_a_lost_push_is_an_error_although_the_shard_says_it_was_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Shard.push
    calls = 0

    def losing(self: Shard, *arguments: Any) -> Ack:
        nonlocal calls
        calls += 1
        if calls != 2:
            return push(self, *arguments)
        self.counts["applied"] += 1
        return Ack(self.version, 0, "applied")

    monkeypatch.setattr(Shard, "push", losing)
    found = train_in_process(tmp_path, monkeypatch)
    assert found["parts"]["pushed_not_counted"] == 0
    assert found["parts"]["pushed_not_in_first_parameters"] == 1
    assert found["parts"]["pushed_not_in_last_parameters"] == 1
    assert found["errors"] == 2


def test_a_push_that_is_applied_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, calls = Shard._apply, 0

    def doubling(self: Shard, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        for _ in range(2 if calls == 2 else 1):
            apply(self, *arguments)

    monkeypatch.setattr(Shard, "_apply", doubling)
    assert train_in_process(tmp_path, monkeypatch)["errors"] == 2


def test_a_torn_pull_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull = Shard.pull
    old: list[np.ndarray] = []  # type: ignore[type-arg]

    def tearing(self: Shard, *arguments: Any) -> Pulled:
        found = pull(self, *arguments)
        if found.dense is None:
            return found
        old.append(found.dense.copy())
        if len(old) != 4:
            return found
        half = len(found.dense) // 2
        return replace(found, dense=np.concatenate([found.dense[:half], old[-2][half:]]))

    monkeypatch.setattr(Shard, "pull", tearing)
    assert train_in_process(tmp_path, monkeypatch)["parts"]["torn_pulls"] == 1


@pytest.mark.slow
def test_two_systems_in_turns_give_rows_of_the_form_that_is_promised() -> None:
    plan = Plan("cnn32", 2, intervals=(1,), rounds=2, seconds=0.3, warm_up=0.1)
    sides = {k: v for k, v in programs(plan, full=False).items() if k in ("bare", "ddp")}
    sides["psdevise n=1"] = sides["bare"]  # the reference twice: Ray would take longer than all other tests here
    rows, calls = measure(plan, sides)
    assert [(r.system, r.metric) for r in rows] == [
        ("bare", "images_per_second"),
        ("ddp", "images_per_second"),
        ("ddp", "images_per_second_ratio"),
        ("psdevise", "images_per_second"),
        ("psdevise", "images_per_second_ratio"),
    ]
    assert {r.case for r in rows} == {"cnn32 W=2 n=1"}
    assert all(r.errors == 0 and r.value > 0 and r.low <= r.value <= r.high for r in rows)
    assert calls == []
    check(rows)


def test_between_its_turns_a_system_is_stopped_and_killed_whole(tmp_path: Path) -> None:
    plan = Plan("cnn32", 1)
    system = System("bare", programs(plan, full=False)["bare"], str(tmp_path / "bare"))
    try:
        system.start(0.05)
        processes = [psutil.Process(pid) for pid in system._processes()]
        assert len(processes) >= 2
        end = time.monotonic() + 10
        while {p.status() for p in processes} != {psutil.STATUS_STOPPED}:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        system.kill()
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


CONTEST = """
import time
from psdevise.bench import index
from psdevise.bench.contest import System
from psdevise.bench.worker import Plan, programs
from psdevise.cli.main import main

def run(context):
    system = System("bare", programs(Plan("cnn32", 1), full=False)["bare"], {folder!r})
    try:
        system.start(0.05)
        print("ready", system._process.pid, flush=True)
        time.sleep(60)
    finally:
        system.kill()

index.run = run
main(["bench", "index"])
"""


def test_a_benchmark_that_is_terminated_leaves_no_stopped_system_behind(tmp_path: Path) -> None:
    code = CONTEST.format(folder=str(tmp_path / "bare"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready, pid = process.stdout.readline().split()
        assert ready == "ready"
        process.terminate()
        assert process.wait(20) == 130
    assert not [p for p in psutil.pids() if _session(p) == int(pid)]


def test_a_program_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    program = Program("psdevise.bench.peers.bare", {"case": "no such case", "workers": 1}, 1, 64)
    system = System("bare", program, str(tmp_path / "bare"))
    try:
        with pytest.raises(BenchmarkFailed, match=r"system bare: ended with exit code 1.*KeyError"):
            system.start(0.1)
    finally:
        system.kill()


def test_rounds_are_as_long_as_promised_and_systems_are_those_of_the_mode() -> None:
    for plan in plans(full=True):
        large = plan.case == "alexnet224"
        assert plan.rounds >= (5 if large else 15)
        assert 3 * plan.seconds >= (60 if large else 10) - 1e-9
    assert {p.workers for p in plans(full=False)} == {2}
    assert {p.workers for p in plans(full=True)} == {1, 2}
    names = ["psdevise n=1", "psdevise n=8", "bare", "ddp"]
    assert list(programs(Plan("mlp", 2), full=False)) == names
    assert list(programs(Plan("mlp", 2), full=True)) == [*names, "ray_example", "torch_rpc"]


def test_the_models_have_the_sizes_that_the_figures_are_of() -> None:
    def size(name: str) -> float:
        return sum(p.numel() for p in tasks.CASES[name].module().body.parameters()) / 1e6

    assert size("cnn32") == pytest.approx(0.55, abs=0.01)
    assert size("mlp") == pytest.approx(4.2, abs=0.05)
    assert size("alexnet224") == pytest.approx(60.965, abs=0.001)


def test_a_result_with_errors_fails_the_run() -> None:
    rows = worker.Rounds({"bare": [1.0], "psdevise": [1.0]}, {"psdevise": 1}).rows("worker", "c", "m", "1/s", "bare")
    with pytest.raises(BenchmarkFailed, match="psdevise"):
        check(rows)
