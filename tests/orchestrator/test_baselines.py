"""Systems on the finished core in a whole run: each has its rows, and what stands is not made anew."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psdevise.errors import ConfigError
from psdevise.events import Event, PhaseFinished
from psdevise.orchestrator.run import execute
from psdevise.systems.heads import BuildHead
from psdevise.systems.linear import SoftmaxHead, _Linear, _loss
from tests.world import tiny

OWN = "tests.compare.test_cifar100:Prototypes"
ALL = ("softmax", "random", "wsabie", "conse", "cosine", "socher", "chollet", "logistic", OWN)


def test_every_baseline_has_its_rows_in_a_run(tmp_path: Path) -> None:
    events: list[Event] = []
    options = replace(tiny(tmp_path), baselines=ALL)
    rows = execute(options, events.append).results
    assert {row["system"] for row in rows} == {"devise", *ALL[:-1], "prototypes"}

    def value(system: str, images: str, metric: str = "hit", k: int = 1) -> float | None:
        return next(
            row["value"]
            for row in rows
            if (row["system"], row["images"], row["candidates"], row["metric"], row["k"])
            == (system, images, images, metric, k)
        )

    for system in ("wsabie", "prototypes", "softmax", "chollet", "logistic"):
        assert value(system, "unseen") is None, f"{system} names no unseen class"
    for system in ("conse", "cosine", "socher"):
        assert value(system, "unseen") is not None
    for system in ALL[2:-1]:
        found = value(system, "seen")
        assert found is not None
        assert 0 <= found <= 1

    events.clear()
    again = execute(replace(options, baselines=(*ALL[:-1], "l2")), events.append).results
    made = {event.phase for event in events if isinstance(event, PhaseFinished) and not event.reused}
    assert made == {"joint-l2", "evaluate"}, "a further baseline trains only itself"
    assert next(r for r in again if r["system"] == "conse") == next(r for r in rows if r["system"] == "conse")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("softmax", "sofmax"), "no baseline 'sofmax'"),
        (("l2", "l2"), "two systems are 'l2'"),
        (("nowhere:At",), "nowhere"),
        (("psdevise.systems.devise:Devise",), "two systems are 'devise'"),
    ],
)
def test_what_is_no_baseline_is_refused_before_anything_runs(names: tuple[str, ...], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        replace(tiny(tmp_path), baselines=names)


def test_a_head_travels_to_a_worker() -> None:
    build = BuildHead("features.parquet", ("a", "b"), _Linear(2), _loss, SoftmaxHead().options, 0)
    again = pickle.loads(pickle.dumps(build))
    np.testing.assert_array_equal(again.make(3).weight.detach().numpy(), np.zeros((2, 3)))
