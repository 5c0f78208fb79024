"""Thousands of seeded schedules, each checked against the reference model; and bugs planted to see it find them.

One seed again:   PSDEVISE_SIMULATION_SEED=123 pytest tests/simulation -k one_seed
More of them:     PSDEVISE_SIMULATION_SCHEDULES=20000 pytest tests/simulation -k hold
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psdevise.server import snapshot
from psdevise.server.coordinator import Coordinator
from psdevise.server.senders import Answered
from psdevise.server.shard import Shard, ShardState
from psdevise.server.supervisor import Supervisor
from tests.simulation.books import Violation
from tests.simulation.schedule import draw, run

SCHEDULES = int(os.environ.get("PSDEVISE_SIMULATION_SCHEDULES", "2000"))
SEED = os.environ.get("PSDEVISE_SIMULATION_SEED")
CHUNK = 50


def run_seed(seed: int) -> Counter[str]:
    try:
        return Counter(run(draw(seed)).seen)
    except Exception as e:
        again = f"PSDEVISE_SIMULATION_SEED={seed} pytest tests/simulation -k one_seed"
        raise Violation(f"{type(e).__name__}: {e}\nschedule: {draw(seed)}\nagain: {again}") from e


@pytest.mark.skipif(SEED is not None, reason="one seed only")
@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_the_promises_hold_whatever_goes_wrong(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        seen += run_seed(seed)
    # A simulation in which nothing happens proves nothing.
    assert seen["applied"] > 10 * CHUNK
    assert min(seen[what] for what in ("finished", "snapshot", "shard restored", "repeated")) > 0, seen


if SEED is not None:

    def test_one_seed_again() -> None:
        run_seed(int(SEED or 0))


@pytest.mark.parametrize("seed", [7, 38, 90, 112])
def test_a_seed_gives_the_same_run_every_time(seed: int) -> None:
    one, two = run(draw(seed)), run(draw(seed))
    assert one.seen == two.seen
    assert list(one.contents.items()) == list(two.contents.items())  # every version of every shard, in order


# ------------------------------------------------------------------ planted bugs


def no_deduplication(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Answered, "__contains__", lambda self, sequence: False)


def a_snapshot_without_its_table(patch: pytest.MonkeyPatch) -> None:
    write = snapshot.write_shard

    def without(path: str, state: ShardState) -> str:
        return write(path, replace(state, answered={}))

    patch.setattr(snapshot, "write_shard", without)


def a_lease_that_never_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Coordinator, "expire", lambda self, now: [])


def versions_without_the_incarnation(patch: pytest.MonkeyPatch) -> None:
    load = Shard._load

    def as_it_was(self: Shard, state: ShardState) -> None:
        load(self, state)
        self.version = state.version

    patch.setattr(Shard, "_load", as_it_was)


def a_ledger_captured_after_the_shards(patch: pytest.MonkeyPatch) -> None:
    def shards_first(self: Supervisor, number: int) -> tuple[dict[str, Any], dict[int, Any]]:
        paths = {i: (snapshot.shard_path(self._folder, number, i),) for i in range(self._layout.shards)}
        checksums = self._hands.call_shards("save", paths)
        return self._hands.ask("state"), checksums

    patch.setattr(Supervisor, "_capture", shards_first)


def positions_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Coordinator, "_advance", lambda self, worker: None)


@pytest.mark.skipif(SEED is not None, reason="one seed only")
@pytest.mark.parametrize(
    ("plant", "says", "seeds"),
    [
        (no_deduplication, "twice", range(100)),
        (a_snapshot_without_its_table, "twice", range(100)),
        (a_lease_that_never_ends, "does not go on", range(50)),
        (versions_without_the_incarnation, "version|not what it was", range(100)),
        (a_ledger_captured_after_the_shards, "lacks its push", range(100)),
        (positions_forgotten, "undisturbed", range(150)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_planted_bugs_are_found(plant: Any, says: str, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    def search() -> None:
        for seed in seeds:
            run(draw(seed))

    with pytest.raises(Violation, match=says):
        search()


def test_simulated_training_needs_no_ray() -> None:
    folder = Path(snapshot.__file__).parents[1] / "simulation"
    assert all("import ray" not in path.read_text() for path in folder.glob("*.py"))
