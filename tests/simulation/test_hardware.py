"""What processes share, against times by hand."""

from __future__ import annotations

from functools import partial

import pytest

from psdevise.simulation.clock import Clock
from psdevise.simulation.hardware import Desk, Lane, Processor, Then, transfer


class Times:
    """A clock, and when what was named came to its end."""

    def __init__(self) -> None:
        self.clock, self._seen = Clock(), dict[str, float]()

    def note(self, name: str) -> Then:
        return lambda: self._seen.__setitem__(name, self.clock.now)

    def all(self) -> dict[str, float]:
        self.clock.run(lambda: False, 1e6)
        return self._seen


def test_a_processor_shares_its_cores_evenly() -> None:
    times = Times()
    cores = Processor(times.clock, 2, streams=2)
    for name, seconds in {"a": 1.0, "b": 1.0, "c": 2.0}.items():
        cores.run(seconds, times.note(name))
    times.clock.after(2.0, lambda: cores.run(1.0, times.note("d")))
    # Three threads on two cores get 2/3 each: a and b have had 1 s after 1.5 s; c has 1 s left then, and a core alone.
    assert times.all() == pytest.approx({"a": 1.5, "b": 1.5, "c": 2.5, "d": 3.0})
    assert cores.busy == pytest.approx(5.0 / 2)


def test_memory_feeds_so_many_cores_and_no_more() -> None:
    times = Times()
    cores = Processor(times.clock, 2, streams=1.25)
    cores.run(1.0, times.note("copy"), memory=True)
    assert times.all() == pytest.approx({"copy": 1.0})
    times = Times()
    cores = Processor(times.clock, 2, streams=1.25)
    for name in ("one", "other"):
        cores.run(1.0, times.note(name), memory=True)
    assert times.all() == pytest.approx({"one": 1.6, "other": 1.6})
    times = Times()
    cores = Processor(times.clock, 2, streams=1.25)
    for name in ("one", "other"):
        cores.run(1.0, times.note(name), memory=True)
    for name in ("a", "b"):
        cores.run(1.0, times.note(name))
    # Half a core each, which the memory can feed (1 of 1.25).
    assert times.all() == pytest.approx(dict.fromkeys(("one", "other", "a", "b"), 2.0))


def test_a_transfer_takes_both_cards_and_queues_at_either() -> None:
    times = Times()
    one, other, target = Lane(100.0), Lane(100.0), Lane(100.0)
    transfer(times.clock, one, target, 100.0, 0.5, times.note("first"))  # the two cards work at once
    transfer(times.clock, other, target, 100.0, 0.5, times.note("second"))  # from another card to the same
    transfer(times.clock, one, Lane(10.0), 100.0, 0.5, times.note("third"))  # behind the first, to a slow card
    assert times.all() == pytest.approx({"first": 1.5, "second": 2.5, "third": 11.5})
    assert (one.busy, target.busy) == pytest.approx((2.0, 2.0))


def test_a_desk_serves_one_after_the_other() -> None:
    times = Times()
    desk = Desk(times.clock)

    def serve(name: str, seconds: float, leave: Then) -> None:
        def end() -> None:
            times.note(name)()
            leave()

        times.clock.after(seconds, end)

    for name, seconds in {"a": 2.0, "b": 1.0, "c": 0.0}.items():
        desk.enter(partial(serve, name, seconds))
    assert times.all() == {"a": 2.0, "b": 3.0, "c": 3.0}
    assert desk.busy == 3.0
