"""The wire benchmark at tiny sizes, on real shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from psdevise.bench import wire
from psdevise.bench.endpoint import Endpoint

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_pulls_and_pushes_stand_beside_memcpy_adagrad_and_an_empty_call(tmp_path: Path) -> None:
    rows = wire.dense(0.1, 2, str(tmp_path / "start"), rounds=2)
    assert {(r.metric, r.system, r.reference) for r in rows if not r.metric.endswith("_ratio")} == {
        ("pull_bandwidth", "psdevise", "memcpy"),
        ("pull_bandwidth", "memcpy", "memcpy"),
        ("push_bandwidth", "psdevise", "memcpy_adagrad"),
        ("push_bandwidth", "memcpy_adagrad", "memcpy_adagrad"),
        ("pull_time", "psdevise", "empty_call"),
        ("pull_time", "empty_call", "empty_call"),
        ("push_time", "psdevise", "empty_call"),
        ("push_time", "empty_call", "empty_call"),
    }
    assert {r.case for r in rows} == {"0.1 MB, 2 shards"}
    assert all(r.errors == 0 and r.value > 0 for r in rows)


def test_a_lost_push_and_a_torn_pull_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push, pull = Endpoint.push, Endpoint.pull
    pushes = pulls = 0

    def losing(self: Endpoint, rows: object = None) -> float:
        nonlocal pushes
        pushes += 1
        return 1.0 if pushes == 3 else push(self, rows)  # type: ignore[arg-type]

    def tearing(self: Endpoint, rows: object = None) -> float:
        nonlocal pulls
        pulls += 1
        seconds = pull(self, rows)  # type: ignore[arg-type]
        if pulls == 5:
            self.replica.arena[: self.replica.layout.size // 2] += 0.01
        return seconds

    monkeypatch.setattr(Endpoint, "push", losing)
    assert {r.errors for r in wire.dense(0.1, 1, str(tmp_path / "a"), rounds=1) if r.system == "psdevise"} == {1}
    monkeypatch.setattr(Endpoint, "push", push)
    monkeypatch.setattr(Endpoint, "pull", tearing)
    assert {r.errors for r in wire.dense(0.1, 1, str(tmp_path / "b"), rounds=1) if r.system == "psdevise"} == {1}


def test_sparse_rows_round_trips_and_a_writer_at_full_speed(tmp_path: Path) -> None:
    rows = wire.sparse(100, str(tmp_path / "a"), counts=(64,), rounds=2)
    rows += wire.round_trips(str(tmp_path / "b"), rounds=2)
    rows += wire.contended(0.4, str(tmp_path / "c"), seconds=0.5)
    assert {r.metric for r in rows if r.system == "psdevise" and not r.metric.endswith("_ratio")} == {
        "push_pull_time",
        "rows_per_second",
        "round_trip_time",
        "pull_bandwidth",
    }
    assert all(r.errors == 0 and r.value > 0 for r in rows)
