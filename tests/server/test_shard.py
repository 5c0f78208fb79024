from __future__ import annotations

import numpy as np
import pytest
import torch

from psdevise.errors import BadGradient, ConfigError, StaleIncarnation, UnknownVersion
from psdevise.server.layout import Dense, Group, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Gradient, Identity, Turn, Version
from psdevise.server.shard import LagOptions, Shard

LAYOUT = Layout(dense=(Dense("w", (4,)),), tables=(Table("t", 6, 2),))
PLAIN = OptimizerOptions(name="sgd", rate=1.0, arguments={"lr": 1.0}, table_rule="sgd")


def shard(options: OptimizerOptions = PLAIN, lag: LagOptions | None = None, incarnation: int = 1) -> Shard:
    return Shard(LAYOUT, 0, options, incarnation, lag=lag)


def gradient(value: float = 1.0, rows: tuple[int, ...] = ()) -> Gradient:
    ids = np.array(rows, np.int64)
    return Gradient(np.full(4, value, np.float32), {"t": (ids, np.full((len(ids), 2), value, np.float32))})


def push(s: Shard, sequence: int, g: Gradient | None = None, floor: int = 0, worker: int = 0, incarnation: int = 1):  # type: ignore[no-untyped-def]
    return s.push(g or gradient(), Identity(worker, incarnation, sequence, floor), s.version)


def test_a_push_is_applied_at_most_once() -> None:
    s = shard()
    assert push(s, 0).outcome == "applied"
    assert push(s, 0).outcome == "repeated"
    assert push(s, 1).outcome == "applied"
    np.testing.assert_array_equal(s.pull().dense, np.full(4, -2.0))
    assert s.counts["applied"] == 2


def test_pushes_may_come_out_of_order_and_the_table_stays_small() -> None:
    s = shard()
    for sequence in (3, 1, 0, 2):
        assert push(s, sequence).outcome == "applied"
    for sequence in range(4, 200):
        assert push(s, sequence, floor=sequence).outcome == "applied"
        assert push(s, sequence - 1, floor=sequence).outcome == "repeated"
    _, floor, above = s.snapshot().answered[0]
    assert floor == 199
    assert len(above) <= 1


def test_a_restored_shard_knows_what_it_applied_and_refuses_old_versions() -> None:
    before = shard()
    push(before, 0)
    old = before.version
    state = before.snapshot()
    push(before, 1)  # acknowledged, after the snapshot: lost with the shard
    after = Shard(LAYOUT, 0, PLAIN, 2, state)
    assert after.push(gradient(), Identity(0, 1, 0, 0), old).outcome == "repeated"
    with pytest.raises(UnknownVersion):
        after.push(gradient(), Identity(0, 1, 1, 0), old)
    assert after.push(gradient(), Identity(0, 1, 1, 0), after.version).outcome == "applied"
    np.testing.assert_array_equal(after.pull().dense, np.full(4, -2.0))


def test_versions_of_another_incarnation_are_always_newer() -> None:
    s = shard(incarnation=2)
    assert s.pull(newer_than=Version(2, 0)).dense is None
    assert s.pull(newer_than=Version(1, 0)).dense is not None


def test_late_pushes_of_a_replaced_worker_are_refused() -> None:
    s = shard()
    push(s, 0, incarnation=1)
    s.admit(0, 2)
    with pytest.raises(StaleIncarnation):
        push(s, 1, incarnation=1)
    assert push(s, 0, incarnation=2).outcome == "applied"


@pytest.mark.parametrize(
    "bad",
    [
        gradient(float("nan")),
        gradient(float("inf")),
        Gradient(np.ones(3, np.float32)),
        Gradient(np.ones(4, np.float64)),  # type: ignore[arg-type]
        gradient(1.0, (9,)),
        gradient(1.0, (-1,)),
        gradient(1.0, (2, 2)),
        Gradient(None, {"t": (np.array([1]), np.ones((1, 3), np.float32))}),
        Gradient(None, {"t": (np.array([1]), np.full((1, 2), np.nan, np.float32))}),
        Gradient(None, {"no such": (np.array([1]), np.ones((1, 2), np.float32))}),
    ],
    ids=["nan", "inf", "shape", "dtype", "row above", "row below", "row twice", "dim", "nan row", "table"],
)
def test_a_bad_gradient_is_refused_counted_and_changes_nothing(bad: Gradient) -> None:
    s = shard()
    with pytest.raises(BadGradient, match="worker 0"):
        push(s, 0, bad)
    assert s.counts["bad_gradient"] == 1
    assert s.version == Version(1, 0)
    assert push(s, 0).outcome == "applied"  # it was not recorded


def test_a_finite_gradient_whose_sum_overflows_is_taken() -> None:
    big = Gradient(np.full(4, 3e38, np.float32))
    assert push(shard(), 0, big).outcome == "applied"


def test_lag_is_measured_scaled_and_refused() -> None:
    for options, outcome, expected in (
        (LagOptions("apply"), "applied", -3.0),
        (LagOptions("scale"), "applied", -2.0 - 1 / 3),
        (LagOptions("refuse", max_lag=1), "too_stale", -2.0),
    ):
        s = shard(lag=options)
        at = s.version
        push(s, 0, worker=1)
        push(s, 1, worker=1)
        ack = s.push(gradient(), Identity(0, 1, 0, 0), at)
        assert (ack.lag, ack.outcome) == (2, outcome)
        np.testing.assert_allclose(s.pull().dense, np.full(4, expected), rtol=1e-6)
        assert s.lags == {0: 2, 2: 1}


def test_a_turn_averages_its_members_in_one_update() -> None:
    s, turn = shard(), Turn(0, (0, 1))
    at = s.version
    assert s.push(gradient(1.0), Identity(0, 1, 0, 0), at, turn=turn).outcome == "held"
    assert s.version.counter == 0
    assert s.answer(Identity(0, 1, 0, 0)).outcome == "held"  # type: ignore[union-attr]
    assert s.push(gradient(3.0), Identity(1, 1, 0, 0), at, turn=turn).outcome == "applied"
    assert s.version.counter == 1
    np.testing.assert_array_equal(s.pull().dense, np.full(4, -2.0))
    assert s.answer(Identity(0, 1, 0, 0)).outcome == "applied"  # type: ignore[union-attr]
    assert s.answer(Identity(0, 1, 7, 0)) is None


def test_a_turn_goes_on_without_a_member_that_died() -> None:
    s = shard()
    s.push(gradient(1.0), Identity(0, 1, 0, 0), s.version, turn=Turn(0, (0, 1)))
    s.amend(Turn(0, (0,)))
    np.testing.assert_array_equal(s.pull().dense, np.full(4, -1.0))


def test_what_is_held_is_not_in_a_snapshot() -> None:
    s = shard()
    s.push(gradient(1.0), Identity(0, 1, 0, 0), s.version, turn=Turn(0, (0, 1)))
    restored = Shard(LAYOUT, 0, PLAIN, 2, s.snapshot())
    assert restored.answer(Identity(0, 1, 0, 0)) is None


@pytest.mark.parametrize("rule", ["sgd", "sum", "adagrad", "adagrad_row"])
def test_table_rules_against_their_formulas(rule: str) -> None:
    options = OptimizerOptions(rate=0.1, initial_accumulator=0.5, eps=1e-8, table_rule=rule)  # type: ignore[arg-type]
    s = shard(options)
    rng = np.random.default_rng(0)
    expected, sums = np.zeros((6, 2)), np.full((6, 2), 0.5)
    for sequence in range(20):
        ids = np.sort(rng.permutation(6)[:3])
        g = rng.standard_normal((3, 2)).astype(np.float32)
        push(s, sequence, Gradient(None, {"t": (ids, g)}))
        squares = np.square(g, dtype=np.float64)
        sums[ids] += squares.mean(axis=1, keepdims=True) if rule == "adagrad_row" else squares
        step = {"sum": g, "sgd": 0.1 * g}.get(rule, 0.1 * g / (np.sqrt(sums[ids]) + 1e-8))
        expected[ids] -= step
    np.testing.assert_allclose(s.pull({"t": np.arange(6)}).rows["t"], expected, rtol=1e-5, atol=1e-6)


def test_adagrad_on_table_rows_equals_torch() -> None:
    options = OptimizerOptions(rate=0.1, initial_accumulator=0.5, table_rule="adagrad")
    s, p = shard(options), torch.nn.Parameter(torch.zeros(6, 2))
    oracle = torch.optim.Adagrad([p], lr=0.1, initial_accumulator_value=0.5)
    for sequence in range(10):
        g = np.random.default_rng(sequence).standard_normal((6, 2)).astype(np.float32)
        push(s, sequence, Gradient(None, {"t": (np.arange(6), g)}))
        p.grad = torch.from_numpy(g)
        oracle.step()
    np.testing.assert_allclose(s.pull({"t": np.arange(6)}).rows["t"], p.detach().numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_other_optimizers_of_torch_by_name_survive_a_snapshot(name: str) -> None:
    arguments = {"lr": 0.1, "momentum": 0.9} if name != "adam" else {"lr": 0.1}
    options = OptimizerOptions(name=name, rate=0.1, arguments=arguments)
    whole, halved = shard(options), shard(options)
    for sequence in range(6):
        g = gradient(float(sequence) - 2.5)
        push(whole, sequence, g)
        if sequence == 3:
            halved = Shard(LAYOUT, 0, options, 2, halved.snapshot())
        push(halved, sequence, g)
    np.testing.assert_array_equal(whole.pull().dense, halved.pull().dense)


def test_an_unknown_optimizer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="adagrad"):
        shard(OptimizerOptions(name="adagradd"))


def test_a_frozen_group_is_held_but_never_stepped() -> None:
    layout = Layout(
        dense=(Dense("a", (2,)), Dense("b", (2,), "still")), groups={"default": Group(), "still": Group(frozen=True)}
    )
    s = Shard(layout, 0, OptimizerOptions(rate=0.1), 1)
    s.push(Gradient(np.ones(4, np.float32)), Identity(0, 1, 0, 0), s.version)
    pulled = s.pull().dense
    assert (pulled[:2] < 0).all()
    assert (pulled[2:] == 0).all()


def test_buffers_are_averaged_over_workers() -> None:
    s = Shard(Layout(buffers=(Dense("m", (2,)),)), 0, PLAIN, 1)
    s.average(0, np.array([1.0, 3.0], np.float32))
    s.average(1, np.array([3.0, 5.0], np.float32))
    s.average(0, np.array([2.0, 2.0], np.float32))
    s.average(1, np.array([np.nan, 5.0], np.float32))  # refused
    np.testing.assert_allclose(s.pull(buffers=True).buffers, [2.5, 3.5])
    assert s.counts["bad_buffers"] == 1


def test_only_workers_that_were_admitted_may_push_where_a_host_admits_them() -> None:
    s = shard()
    s.admit(0, 4)
    assert push(s, 0, incarnation=4).outcome == "applied"
    for worker, incarnation in ((0, 3), (0, 5), (1, 4)):
        with pytest.raises(StaleIncarnation):
            push(s, 0, worker=worker, incarnation=incarnation)
    s.admit(1, 9)
    assert push(s, 0, worker=1, incarnation=9).outcome == "applied"
    assert s.counts["stale_incarnation"] == 3


def test_poison_is_counted_by_sender_and_life() -> None:
    s = shard()
    for sequence in range(3):
        with pytest.raises(BadGradient):
            push(s, sequence, gradient(float("nan")), worker=2)
    with pytest.raises(BadGradient, match="learning rate"):
        s.push(gradient(), Identity(2, 1, 9, 0), s.version, float("nan"))
    assert s.stats()["poisoned"] == {2: (1, 4, "nan is no learning rate")}
    with pytest.raises(BadGradient):
        push(s, 0, gradient(float("inf")), worker=2, incarnation=2)
    assert s.stats()["poisoned"][2][:2] == (2, 1)
    np.testing.assert_array_equal(s.pull().dense, np.zeros(4))


def test_examples_are_tallied_in_answers_and_snapshots() -> None:
    s = shard()
    assert push(s, 0, Gradient(np.ones(4, np.float32), {}, 7)).examples == 7
    assert push(s, 0, Gradient(np.ones(4, np.float32), {}, 7)).examples == 7, "repeated"
    state = s.snapshot()
    assert push(s, 1, Gradient(np.ones(4, np.float32), {}, 5)).examples == 12
    after = Shard(LAYOUT, 0, PLAIN, 2, state)
    assert after.examples == 7, "five were acknowledged and are taken back"
    turn = Turn(0, (0, 1))
    held = [Gradient(np.ones(4, np.float32), {}, n) for n in (3, 4)]
    assert after.push(held[0], Identity(0, 2, 0, 0), after.version, 1.0, turn).examples == 7
    assert after.push(held[1], Identity(1, 2, 0, 0), after.version, 1.0, turn).examples == 14


@pytest.mark.parametrize(
    "options", [PLAIN, OptimizerOptions(name="adam", arguments={"lr": 0.1}), OptimizerOptions(table_rule="adagrad_row")]
)
def test_a_snapshot_goes_into_memory_that_was_made_before(options: OptimizerOptions) -> None:
    """Also where the optimizer has got arrays since; and what is pushed later does not reach it."""
    s = shard(options)
    push(s, 0, gradient())
    room = {name: np.full(shape, 7, np.float32) for name, shape in s.shapes().items()}
    assert set(room) == set(s.snapshot().tensors)
    for name in [name for name in room if name.startswith("optimizer")]:
        del room[name]
    plain, state = s.snapshot(), s.snapshot(room)
    assert all(state.tensors[name] is array for name, array in room.items())
    push(s, 1, gradient())
    assert set(state.tensors) == set(plain.tensors)
    for name, array in plain.tensors.items():
        np.testing.assert_array_equal(state.tensors[name], array)
        assert not np.shares_memory(state.tensors[name], s.snapshot().tensors[name])


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), 2e38, -1.0, None, "1"])
def test_a_bound_that_proves_nothing_is_no_reason_not_to_look(bound: object) -> None:
    s = shard()
    with pytest.raises(BadGradient, match="not finite"):
        push(s, 0, Gradient(np.full(4, np.nan, np.float32), {}, 1, bound))  # type: ignore[arg-type]
    assert s.version.counter == 0


def test_what_is_known_to_be_finite_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(values: object) -> bool:
        raise AssertionError("a pass over the gradient that was not needed")

    monkeypatch.setattr("psdevise.server.check.all_finite", look)
    assert push(shard(), 0, Gradient(np.ones(4, np.float32), {}, 1, 3.0)).outcome == "applied"
