"""What the supervisor's hands on Ray find, without a Ray."""

from __future__ import annotations

from typing import Any

import pytest

from psdevise.runtime import training
from psdevise.runtime.training import _Hands, _Life
from psdevise.server.hands import Ended


def test_an_end_is_seen_beside_a_worker_that_came_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = object.__new__(_Hands)
    hands._workers = {1: _Life(1, 5, None, place="place 1"), 2: _Life(2, 6, None, place="place 2", result="end 2")}

    def wait(refs: list[str], timeout: float) -> tuple[list[str], list[str]]:  # all are ready: the first is told
        return refs[:1], refs[1:]

    monkeypatch.setattr(training.ray, "wait", wait)
    monkeypatch.setattr(_Hands, "_end_of", lambda self, life: Ended(life.rank, life.incarnation))
    assert hands.ended(1.0) == [Ended(2, 6)]
    del hands._workers[2]
    assert hands.ended(1.0) == []  # a place that is there is no end


def test_without_a_worker_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*refs: Any, **options: Any) -> None:
        raise AssertionError("ray.wait of nothing is an error")

    hands = object.__new__(_Hands)
    hands._workers = {}
    monkeypatch.setattr(training.ray, "wait", wait)
    assert hands.ended(1.0) == []
