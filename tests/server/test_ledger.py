from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.server.coordinator import WAIT, Begun, Coordinator
from psdevise.server.ledger import Ledger, Slice, cut
from psdevise.server.pace import Pace


@given(st.integers(0, 500), st.integers(1, 50))
def test_cut_covers_all_rows_once(rows: int, slices: int) -> None:
    found = cut(rows, slices)
    assert [r for start, stop in found for r in range(start, stop)] == list(range(rows))
    assert all(stop > start for start, stop in found)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from("lfed"), st.integers(0, 3)), max_size=200), st.integers(0, 5))
def test_any_interleaving_finishes_each_slice_exactly_once_an_epoch(moves: list[tuple[str, int]], seed: int) -> None:
    """l: lease, f: finish one, e: let time pass so that leases run out, d: snapshot and restore."""
    slices = cut(60, 6)
    ledger = Ledger(slices, 2, seed, lease_seconds=10.0)
    held: dict[int, list[Slice]] = {w: [] for w in range(4)}
    finished: list[tuple[int, int]] = []
    now = 0.0

    def step(move: str, worker: int) -> None:
        nonlocal ledger, now
        if move == "l" and (taken := ledger.lease(worker, now)) is not None:
            held[worker].append(taken)
        elif move == "f" and held[worker]:
            taken = held[worker].pop(0)
            if ledger.finish(worker, taken):
                finished.append((taken.epoch, taken.number))
        elif move == "e":
            now += 11.0
            for late in ledger.expire(now):
                held[late].clear()
        elif move == "d":
            state = ledger.state()
            ledger = Ledger(slices, 2, seed, lease_seconds=10.0)
            ledger.restore(state)
            for leases in held.values():
                leases.clear()

    for move, worker in moves:
        step(move, worker)
    step("e", 0)
    while not ledger.done:
        step("l", 0)
        step("f", 0)
    assert sorted(finished) == [(e, i) for e in range(2) for i in range(6)]
    assert ledger.audit.finished == 120
    assert ledger.progress == 1.0


def test_the_order_is_drawn_anew_each_epoch_and_known_beforehand() -> None:
    def order(seed: int) -> list[list[int]]:
        ledger = Ledger(cut(100, 20), 2, seed, 10.0)
        leased = [ledger.lease(0, 0.0) for _ in range(40)]
        return [[s.number for s in leased if s is not None and s.epoch == e] for e in range(2)]

    first, second = order(1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert order(1) == [first, second] != order(2)


def test_a_worker_whose_lease_ran_out_cannot_finish_its_slice() -> None:
    ledger = Ledger(cut(10, 1), 1, 0, 10.0)
    taken = ledger.lease(0, 0.0)
    assert taken is not None
    assert ledger.expire(20.0) == {0}
    assert not ledger.finish(0, taken)
    assert ledger.lease(1, 20.0) == taken
    assert ledger.finish(1, taken)
    assert (ledger.audit.finished, ledger.audit.repeated) == (10, 10)


def test_the_bound_on_staleness() -> None:
    pace = Pace(2)
    assert pace.join(0) == pace.join(1) == 0
    for step in range(3):
        assert pace.may_begin(step)
        pace.pushed(0, step)
    assert not pace.may_begin(3)  # worker 1 has pushed nothing: 3 − 2 − 1 = 0 is not in
    pace.pushed(1, 0)
    assert pace.may_begin(3)
    assert not pace.may_begin(4)
    assert pace.join(2) == 3  # one that joins takes the highest step under way
    pace.leave(1)
    pace.leave(2)
    assert pace.may_begin(5)


def test_warm_start_lets_worker_0_go_alone() -> None:
    coordinator = Coordinator(Ledger(cut(40, 8), 1, 0, 10.0), None, warm_start=5)
    for worker in (0, 1):
        coordinator.join(worker, worker + 1, 0.0)
    assert coordinator.lease(1, 2, 0.0) == WAIT
    assert isinstance(coordinator.lease(0, 1, 0.0), Slice)
    coordinator.report(0, 1, {"steps": 5.0}, {}, 0.0)
    assert isinstance(coordinator.lease(1, 2, 0.0), Slice)


def test_warm_start_goes_on_with_the_next_worker_where_there_is_no_room_for_worker_0() -> None:
    coordinator = Coordinator(Ledger(cut(40, 8), 1, 0, 10.0), None, warm_start=5)
    for worker in (0, 1, 2):
        coordinator.join(worker, worker + 1, 0.0)
    assert isinstance(coordinator.lease(0, 1, 0.0), Slice)
    coordinator.report(0, 1, {"steps": 3.0}, {}, 0.0)
    coordinator.leave(0, 1)
    assert coordinator.lease(2, 3, 0.0) == WAIT
    assert isinstance(coordinator.lease(1, 2, 0.0), Slice)
    coordinator.report(1, 2, {"steps": 2.0}, {}, 0.0)
    assert isinstance(coordinator.lease(2, 3, 0.0), Slice)


def test_at_staleness_0_nobody_waits_for_one_that_died_before_the_first_step() -> None:
    """There may be no room for its next life. Also not for the slice that it held when the snapshot was taken."""

    def begun(workers: tuple[int, ...]) -> Coordinator:
        coordinator = Coordinator(Ledger(cut(40, 2), 1, 0, 10.0), 0, expected=2)
        for worker in workers:
            coordinator.join(worker, 7, 0.0)
        return coordinator

    before = begun((0, 1))
    assert before.lease(0, 7, 0.0) == WAIT
    assert isinstance(before.lease(1, 7, 0.0), Slice)
    assert begun((0,)).lease(0, 7, 0.0) == WAIT, "one that has not come yet is waited for"

    after = begun((0, 1))
    after.restore(before.state())
    assert after.lease(0, 7, 0.0) == WAIT
    after.leave(1, 7)
    for _ in range(2):
        taken = after.lease(0, 7, 0.0)
        assert isinstance(taken, Slice)
        assert isinstance(after.begin(0, 7, -1, 0.0), Begun)
        assert after.finish(0, 7, taken)
    assert after.ledger.done


def test_at_staleness_0_slices_go_out_in_worker_order_whoever_asks_first() -> None:
    def slices(first: int, second: int) -> dict[int, object]:
        coordinator = Coordinator(Ledger(cut(40, 8), 1, 0, 10.0), 0, expected=2)
        for worker in (0, 1):
            coordinator.join(worker, 7, 0.0)
        assert coordinator.lease(first, 7, 0.0) == WAIT
        found = {second: coordinator.lease(second, 7, 0.0)}
        return found | {first: coordinator.lease(first, 7, 0.0)}

    assert slices(0, 1) == slices(1, 0)


def test_an_old_incarnation_is_told_to_go() -> None:
    coordinator = Coordinator(Ledger(cut(40, 8), 1, 0, 10.0), None)
    coordinator.join(0, 1, 0.0)
    coordinator.join(0, 2, 0.0)
    assert coordinator.lease(0, 1, 0.0) is None
    assert not coordinator.renew(0, 1, 0.0)
    assert coordinator.renew(0, 2, 0.0)
