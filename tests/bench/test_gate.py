from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from psdevise.bench.gate import Gate


def until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "deadline"
        time.sleep(0.001)


class Workers:
    """Threads, each with its own Gate on the file; a step takes what `lengths` says."""

    def __init__(self, path: str, lengths: list[float], lockstep: bool = False) -> None:
        self.steps = [0] * len(lengths)
        meeting = threading.Barrier(len(lengths))

        def work(i: int, seconds: float) -> None:
            gate = Gate(path, lockstep)
            while gate.enter():
                time.sleep(seconds)
                if lockstep:
                    meeting.wait(20)
                gate.count()
                self.steps[i] += 1

        self.threads = [threading.Thread(target=work, args=a, daemon=True) for a in enumerate(lengths)]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def test_workers_compute_only_in_turns_and_the_rate_is_of_whole_steps(tmp_path: Path) -> None:
    gate = Gate.create(str(tmp_path / "gate"), 2)
    workers = Workers(gate.path, [0.01, 0.03])
    until(lambda: gate.attended)
    assert workers.steps == [0, 0], "the gate is shut"
    gate.open(0.2, setting=7)
    until(lambda: gate.ended)
    before = list(workers.steps)
    assert gate.setting == 7
    assert gate.total == sum(before) > 0
    assert 0 < gate.rate() <= 100 + 34, "no faster than the steps' own lengths"
    gate.open(0.05)
    until(lambda: gate.ended)
    assert all(now > then for now, then in zip(workers.steps, before, strict=True))
    gate.finish()
    workers.join()
    assert gate.total == sum(workers.steps)


def test_in_lockstep_all_end_a_turn_after_the_same_step(tmp_path: Path) -> None:
    gate = Gate.create(str(tmp_path / "gate"), 3)
    workers = Workers(gate.path, [0.001, 0.002, 0.004], lockstep=True)
    for _ in range(3):
        gate.open(0.05)
        until(lambda: gate.ended)
        assert len(set(workers.steps)) == 1
    gate.finish()
    workers.join()


def test_a_turn_of_no_time_is_one_step(tmp_path: Path) -> None:
    gate = Gate.create(str(tmp_path / "gate"), 1)
    workers = Workers(gate.path, [0.0])
    gate.open(0.0)
    until(lambda: gate.ended)
    assert workers.steps == [1]
    gate.finish()
    workers.join()


def test_faults_are_summed_and_a_worker_too_many_is_one(tmp_path: Path) -> None:
    gate = Gate.create(str(tmp_path / "gate"), 1)
    gate.finish()
    first = Gate(gate.path)
    assert not first.enter(wrong=2)
    assert not first.enter(wrong=1)
    assert gate.wrong == 3
    with pytest.raises(RuntimeError, match="more workers"):
        Gate(gate.path).claim()
