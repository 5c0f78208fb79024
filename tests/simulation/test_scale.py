"""Simulated throughput, lag, training and deaths, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from psdevise import config, store
from psdevise.cli.main import exit_code
from psdevise.errors import BenchmarkFailed, ConfigError, DataError
from psdevise.simulation import calibrate
from psdevise.simulation.grid import Grid
from psdevise.simulation.options import (
    CostOptions,
    FailureOptions,
    HostOptions,
    LearningOptions,
    ModelOptions,
    SimulateOptions,
)
from psdevise.simulation.scale import Outcome, simulate
from psdevise.simulation.smallmodel import SLICE_BATCHES, SmallModel, gradient
from psdevise.worker.downpour import DownpourOptions

# Round figures: a GB takes a second to copy; 100 MB of parameters.
COSTS = CostOptions(
    compute=1.0,
    step=0.01,
    copy_gb=1.0,
    check_gb=0.1,
    update_gb=2.0,
    codec_gb=0.5,
    message=0.0,
    serve=0.0,
    stream=0.0,
    call=0.0,
    start=1.0,
)
HUNDRED = ModelOptions(dense_mb=100.0)
ONE_HOST = HostOptions(together=True, cores=1000.0, streams=1000.0, latency=0.0)
MANY_HOSTS = HostOptions(together=False, cores=1000.0, streams=1000.0, latency=0.0, gbit=8.0)  # 1 GB/s
BASE = SimulateOptions(model=HUNDRED, costs=COSTS, hosts=ONE_HOST, workers=1, snapshot_seconds=1e6)


def ran(**changes: object) -> Outcome:
    return simulate(replace(BASE, **changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------ one host


@pytest.mark.parametrize("shards", [1, 4])
def test_one_worker_waits_for_its_gradient_and_its_own_copy_alone(shards: int) -> None:
    """Its push is applied while it computes."""
    found = ran(shards=shards)
    assert found.steps_per_second == pytest.approx(1 / (1.0 + 0.01 + 0.1))
    assert found.efficiency == pytest.approx(1.0 / 1.11)
    assert found.lag == 1.0  # the fetch that a gradient was computed with was made before the last push


def test_workers_that_do_not_meet_are_as_many_times_as_fast() -> None:
    calm = replace(COSTS, copy_gb=0.0, check_gb=0.0, update_gb=0.0)
    assert ran(workers=8, costs=calm).steps_per_second == pytest.approx(8 / 1.01)
    assert ran(workers=8, costs=calm).lag == pytest.approx(8.0, abs=0.5)


def test_a_saturated_shard_applies_one_push_after_the_other() -> None:
    """Each takes its check and its update; pulls that must hold the shard still take a copy's time more."""
    busy = replace(COSTS, compute=0.01)
    found = ran(workers=16, costs=busy)
    update, copy = 0.1 * (0.1 + 2.0), 0.1
    assert 1 / (update + copy) <= found.steps_per_second <= 1 / update
    assert found.busiest == "shard"
    assert found.used["shard"] == pytest.approx(1.0, abs=0.02)
    halves = ran(workers=16, shards=2, costs=busy)
    assert halves.steps_per_second == pytest.approx(2 * found.steps_per_second, rel=0.25)


def test_cores_are_what_is_left_when_all_wait_for_them() -> None:
    busy = replace(COSTS, compute=0.5, compute_cores=1, update_gb=0.5)
    found = ran(workers=12, shards=4, costs=busy, hosts=replace(ONE_HOST, cores=2.0, streams=2.0))
    at_most = 2 / (0.5 + 0.01 + 0.1 * (1.0 + 0.1 + 0.5))
    assert 0.85 * at_most < found.steps_per_second <= at_most * 1.01  # torn copies are made again
    assert found.busiest == "cores"


# ------------------------------------------------------------------ many hosts


def test_calls_between_hosts_hide_behind_the_gradient_or_are_waited_for() -> None:
    """A pull and a push are on their way while the gradient is computed; taking the pull is not."""
    found = ran(hosts=MANY_HOSTS)
    assert found.steps_per_second == pytest.approx(1 / (1.0 + 0.01 + 0.1))
    alone = ran(hosts=MANY_HOSTS, downpour=replace(BASE.downpour, overlap=False))
    # Then also: the last push on its way, its check and update, the shard's copy and the way back.
    waited = 0.1 + 0.21 + 0.1 + 0.1
    assert alone.steps_per_second == pytest.approx(1 / (1.0 + 0.01 + 0.1 + waited))
    slow = ran(hosts=MANY_HOSTS, costs=replace(COSTS, copy_gb=2.0), downpour=replace(BASE.downpour, overlap=False))
    # The kernels' copies, not the cards, are what both ways wait for now.
    assert slow.steps_per_second == pytest.approx(1 / (1.0 + 0.01 + 0.2 + 0.2 + 0.21 + 0.2 + 0.2))


def test_a_saturated_shard_serves_pulls_and_pushes_in_turn() -> None:
    found = ran(hosts=replace(MANY_HOSTS, gbit=8000.0), workers=16, costs=replace(COSTS, compute=0.1))
    assert found.steps_per_second == pytest.approx(1 / (0.1 * (1.0 + 0.1 + 2.0)), rel=0.02)
    assert found.busiest == "shard"


def test_a_saturated_card_carries_its_bytes_and_compression_helps() -> None:
    free = replace(COSTS, compute=0.1, copy_gb=0.0, check_gb=0.0, update_gb=0.0, codec_gb=0.0)
    found = ran(hosts=MANY_HOSTS, workers=16, costs=free)
    assert found.steps_per_second == pytest.approx(1 / 0.1, rel=0.02)
    assert found.busiest == "shard network"
    half = ran(hosts=MANY_HOSTS, workers=16, costs=free, model=replace(HUNDRED, bytes_per_value=2.0))
    assert half.steps_per_second == pytest.approx(2 / 0.1, rel=0.02)
    shared = ran(hosts=replace(MANY_HOSTS, shards_per_host=2), shards=2, workers=16, costs=free)
    assert shared.steps_per_second == pytest.approx(1 / 0.1, rel=0.02)


def test_fewer_pushes_need_fewer_bytes() -> None:
    one, eight = Grid(n_push=(1, 8)).of(replace(BASE, hosts=MANY_HOSTS, workers=16))
    free = replace(COSTS, compute=0.1, copy_gb=0.0, check_gb=0.0, update_gb=0.0)
    assert simulate(replace(one, costs=free)).steps_per_second == pytest.approx(1 / 0.1, rel=0.02)
    # A pull brings the accumulators along: 200 MB in 8 steps are 25 MB a step.
    found = simulate(replace(eight, costs=free, warm_up=40, steps=80))
    assert found.steps_per_second == pytest.approx(1 / 0.025, rel=0.05)


# ------------------------------------------------------------------ learning


def test_the_small_models_gradient_is_autograds() -> None:
    task = SmallModel(hidden=16, batch=8, slices=1, seed=3)
    arena = task.layout.flatten(task.initial())
    batch = next(task.read(0, 1, np.random.default_rng(0)))
    found = np.empty_like(arena)
    loss = gradient(task.layout, arena, batch, found)
    w = {name: torch.tensor(value, requires_grad=True) for name, value in task.layout.views(arena).items()}
    z = torch.relu(torch.from_numpy(batch[0]) @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
    expected = torch.nn.functional.cross_entropy(z, torch.from_numpy(batch[1]))
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    reference = {name: tensor.grad.numpy() for name, tensor in w.items() if tensor.grad is not None}
    np.testing.assert_allclose(found, task.layout.flatten(reference), atol=1e-6)


def test_time_to_a_target_is_training_and_follows_the_time_of_a_step() -> None:
    learning = LearningOptions(target=1.5)
    one = ran(learning=learning)
    assert one.loss is not None
    assert one.loss <= 1.5 < 2.4
    assert one.seconds_to_target == pytest.approx(one.updates * 1.11, rel=0.05)
    slower = ran(learning=learning, costs=replace(COSTS, compute=3.0))
    assert one.seconds_to_target is not None
    assert slower.updates == one.updates  # one worker's training does not hang on how long things take
    assert slower.seconds_to_target == pytest.approx(one.seconds_to_target * 3.11 / 1.11, rel=0.01)
    four = ran(learning=learning, workers=4)
    assert four.seconds_to_target is not None
    assert four.seconds_to_target < 0.6 * one.seconds_to_target
    assert ran(learning=LearningOptions(target=1e-6, limit=200)).seconds_to_target is None


def test_lag_makes_updates_worth_less() -> None:
    few = ran(workers=2, learning=LearningOptions(target=1.2))
    many = ran(workers=64, learning=LearningOptions(target=1.2))
    assert many.lag > 20 * few.lag
    assert many.updates > 1.2 * few.updates


def test_a_loss_that_is_not_finite_any_more_ends_the_run_and_not_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallModel, "gradient", lambda *arguments: ({}, {"examples": 1.0, "loss": float("nan")}))
    found = ran(learning=LearningOptions(target=0.1))
    assert found.diverged
    assert found.seconds_to_target is None


# ------------------------------------------------------------------ failures


def test_deaths_cost_what_they_take_back() -> None:
    light = replace(COSTS, copy_gb=0.1, update_gb=0.1, start=5.0)
    calm = ran(workers=4, seconds=600.0, costs=light)
    dying = ran(workers=4, seconds=600.0, costs=light, failures=FailureOptions(worker_deaths=60.0))
    assert 20 < dying.deaths < 60  # 4 workers, 10 minutes, one a minute each
    # A dead one is missed for its start (5 s) and the supervisor's look (up to 0.25 s); of the gradient that it died
    # in, which counts from its begin, half had passed.
    share = 1 - dying.deaths * (5.0 + 0.1 - 0.5) / (4 * 600)
    assert dying.steps_per_second == pytest.approx(share * calm.steps_per_second, rel=0.015)
    assert dying.rolled_back == 0
    assert calm.repeated == 0 < dying.repeated <= dying.deaths * SLICE_BATCHES


def test_a_restored_shard_has_lost_what_came_after_its_snapshot() -> None:
    often = ran(workers=4, seconds=300.0, failures=FailureOptions(shard_deaths=60.0), snapshot_seconds=5.0)
    seldom = ran(workers=4, seconds=300.0, failures=FailureOptions(shard_deaths=60.0), snapshot_seconds=50.0)
    assert often.deaths == seldom.deaths > 2
    assert 0 < often.rolled_back < seldom.rolled_back
    per_death = often.rolled_back / often.deaths
    assert per_death <= (5.0 + 1.0) * often.steps_per_second + 8  # the interval, and a look at the clock


def test_the_same_seed_gives_the_same_outcome() -> None:
    options = replace(
        BASE,
        workers=5,
        shards=2,
        costs=replace(COSTS, jitter=0.2),
        failures=FailureOptions(worker_deaths=60.0, shard_deaths=60.0),
        learning=LearningOptions(target=1.8),
        snapshot_seconds=5.0,
    )
    assert simulate(options) == simulate(options)
    assert simulate(options) != simulate(replace(options, seed=1))


# ------------------------------------------------------------------ command, options, calibration


def test_the_command_shows_what_is_varied_and_writes_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "found.json")
    arguments = ["--workers", "1,2", "--set", "steps=3", "--set", "costs.compute=0.25", "--json", path]
    assert exit_code(["simulate", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "efficiency" in shown
    assert "Gbit/s" not in shown
    rows = store.read_json(path)
    assert [r["workers"] for r in rows] == [1, 2]
    expected = simulate(replace(SimulateOptions(), steps=3, costs=CostOptions(compute=0.25)))
    assert rows[1]["outcome"]["steps_per_second"] == expected.steps_per_second
    for wrong in (["--workers", "0"], ["--gbit", "x"], ["--calibrate", path, "--workers", "2"]):
        assert exit_code(["simulate", *wrong]) == 2
    assert exit_code(["simulate", "--calibrate", path]) == 1
    assert "DataError" in capsys.readouterr().err


def test_a_grid_has_every_combination() -> None:
    runs = Grid(workers=(1, 2), n_push=(1, 4), compression=(2.0,)).of(BASE)
    assert [(o.workers, o.downpour.n_push, o.downpour.n_fetch, o.downpour.local_step) for o in runs] == [
        (1, 1, 1, "none"), (1, 4, 4, "adagrad"), (2, 1, 1, "none"), (2, 4, 4, "adagrad"),
    ]  # fmt: skip
    assert {o.model.bytes_per_value for o in runs} == {2.0}
    sgd = replace(BASE, downpour=DownpourOptions(n_fetch=2, local_step="sgd", local_rate=0.1))
    assert Grid(n_push=(4,)).of(sgd)[0].downpour.local_step == "sgd"


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="neither dense parameters nor rows"):
        config.build(SimulateOptions, {"model": {"dense_mb": 0}})
    with pytest.raises(ConfigError, match=r"costs\.compute"):
        config.build(SimulateOptions, {"costs": {"compute": -1}})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "jobs" / "simulate").glob("*.yaml")), ids=str)
def test_shipped_costs_are_accepted(path: Path) -> None:
    found = simulate(replace(config.load(SimulateOptions, str(path)), workers=2, shards=2, steps=3))
    assert found.steps_per_second > 0


def bench_rows(points: list[calibrate.Point], machine: dict[str, float]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"case": "machine", "system": name, "metric": "milliseconds", "value": seconds * 1e3}
        for name, seconds in machine.items()
    ]
    rows.append({"case": "machine", "system": calibrate.STREAMS, "metric": "cores", "value": 1.5})
    for p in points:
        case = f"W={p.workers} shards={p.shards} {p.wait * 1e3:g} ms"
        rows.append({"case": case, "system": "psdevise", "metric": "steps_per_second", "value": p.rate})
        rows.append({"case": case, "system": "one_worker_times_W", "metric": "steps_per_second", "value": 1.0})
        rows.append({"case": case, "system": "psdevise", "metric": "steps_per_second_of_bound", "value": p.rate})
    return [*rows, {"case": "W=4 shards=2", "system": "psdevise", "metric": "lag", "value": 3.9}]


MACHINE = {
    calibrate.COPY: 0.002,
    calibrate.UPDATE: 0.005,
    calibrate.CALL: 0.001,
    calibrate.SERVE: 0.0007,
    calibrate.MESSAGE: 0.0002,
}


def test_costs_are_found_again_and_other_points_predicted(tmp_path: Path) -> None:
    """A benchmark whose figures the simulator itself has made up."""
    true = replace(calibrate.costs(calibrate.Measured([calibrate.Point(1, 1, 0.05, 18.0)], {}, MACHINE)), step=0.003)
    points = [calibrate.Point(w, s, 0.05, 1.0) for w, s in ((1, 1), (2, 1), (4, 1), (8, 2))]
    points = [replace(p, rate=simulate(calibrate.options_of(p, true, 1.5)).steps_per_second) for p in points]
    path = str(tmp_path / "scale.json")
    store.write_json(path, bench_rows(points, MACHINE))
    measured = calibrate.read(path)
    assert measured.points == points
    assert measured.lags == {(4, 2): 3.9}
    found = calibrate.costs(measured)
    assert found.step == pytest.approx(0.003, rel=0.15)
    assert replace(found, step=0.003) == true
    predictions = calibrate.predict(measured)
    assert [p.point.known for p in predictions] == [True] * 2 + [False] * 2
    assert calibrate.errors(predictions)[1] < 0.05
    calibrate.check(predictions)
    wrong = [replace(p, rate=p.rate * 1.4) if i == 3 else p for i, p in enumerate(predictions)]
    with pytest.raises(BenchmarkFailed, match="largest 3"):
        calibrate.check(wrong)
    # Points that are to be predicted give no cost.
    changed = [p if p.known else replace(p, rate=p.rate * 2) for p in points]
    assert calibrate.costs(replace(measured, points=changed)) == calibrate.costs(measured)


def test_files_that_are_no_figures_of_bench_scale_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "other.json")
    for rows in ([{"a": 1}], {"a": 1}, [3]):
        store.write_json(path, rows)
        with pytest.raises(DataError, match="no figures of bench scale"):
            calibrate.read(path)
    store.write_json(path, bench_rows([calibrate.Point(4, 1, 0.05, 18.0)], MACHINE))
    with pytest.raises(DataError, match="no point with 1 or 2 workers"):
        calibrate.costs(calibrate.read(path))
    store.write_json(path, bench_rows([calibrate.Point(1, 1, 0.05, 18.0)], {}))
    with pytest.raises(DataError, match="memcpy"):
        calibrate.costs(calibrate.read(path))
