"""What is reserved for shards and workers, and how a lack of it is told. No Ray but for the last test."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psdevise.errors import ConfigError, ResourceError
from psdevise.runtime.job import ClusterOptions
from psdevise.runtime.placement import Group, Placement, groups, hosts, missing, shard_bytes
from psdevise.server.layout import Dense, Layout, Table


def node(labels: dict[str, str] | None = None, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Labels": labels or {}, "Resources": resources}


def test_shards_are_spread_away_from_spot_nodes_and_workers_packed() -> None:
    shards, workers = groups(ClusterOptions(num_workers=3, num_shards=2, gpus_per_worker=0.5, gpu_workers=2), 5_000_000)
    assert shards == Group("shards", ({"memory": 5e6},) * 2, "SPREAD", {"ray.io/market-type": "!spot"})
    assert workers.strategy == "PACK"
    assert workers.bundles == ({"CPU": 1.0, "GPU": 0.5}, {"CPU": 1.0, "GPU": 0.5}, {"CPU": 1.0})
    assert workers.labels == {}


def test_workers_that_may_come_later_have_groups_of_their_own() -> None:
    _, first, *later = groups(ClusterOptions(num_workers=4, min_workers=2, gpus_per_worker=1, gpu_workers=3), 1)
    assert first.bundles == ({"CPU": 1.0, "GPU": 1.0},) * 2
    assert [(g.role, g.bundles) for g in later] == [
        ("worker 2", ({"CPU": 1.0, "GPU": 1.0},)),
        ("worker 3", ({"CPU": 1.0},)),
    ]
    assert ClusterOptions(num_workers=2, min_workers=5).first_workers == 2
    assert ClusterOptions(num_workers=2).first_workers == 2


def test_shards_can_be_given_nodes_of_their_own() -> None:
    shards, _ = groups(ClusterOptions(shards_on="role=memory", cpus_per_shard=2), 1)
    assert shards.labels == {"ray.io/market-type": "!spot", "role": "memory"}
    assert shards.bundles == ({"memory": 1e6, "CPU": 2},)
    with pytest.raises(ConfigError, match="shards_on"):
        ClusterOptions(shards_on="role")


@given(st.integers(1, 9), st.floats(0, 4), st.floats(0, 4))
def test_no_bundle_is_empty(workers: int, cpus: float, gpus: float) -> None:
    options = ClusterOptions(num_workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
    for group in groups(options, 0):
        assert all(bundle and min(bundle.values()) > 0 for bundle in group.bundles)


def test_a_shard_asks_for_parameters_accumulators_and_their_copy() -> None:
    layout = Layout(dense=(Dense("w", (10, 100)),), tables=(Table("t", 7, 5),), shards=2)
    assert shard_bytes(layout) == 4 * 4 * (500 + 4 * 5)


@pytest.mark.parametrize(
    ("group", "nodes", "free", "words"),
    [
        (Group("workers", ({"GPU": 1.0},) * 2, "PACK", {}), [node(CPU=8, GPU=1)], {}, "2 GPU wanted, the 1 nodes"),
        (Group("workers", ({"CPU": 4.0},), "PACK", {}), [node(CPU=2), node(CPU=2)], {}, "4 CPU wanted on one node"),
        (Group("workers", ({"CPU": 1.0},) * 2, "PACK", {}), [node(CPU=2)], {"CPU": 1.0}, "1 CPU free: others hold"),
        (
            Group("shards", ({"memory": 3e9},), "SPREAD", {"ray.io/market-type": "!spot"}),
            [node({"ray.io/market-type": "spot"}, memory=9e9), node(memory=2e9)],
            {},
            "3.00 GB of memory wanted, the 1 nodes for it have 2.00 GB",
        ),
        (
            Group("shards", ({"memory": 1.0},), "SPREAD", {"ray.io/market-type": "!spot", "role": "memory"}),
            [node(memory=9e9), node({"role": "memory"}, alive=False)],
            {},
            "none of the 1 nodes has not ray.io/market-type=spot and role=memory",
        ),
        (
            Group("workers", ({"CPU": 2.0},) * 2, "PACK", {}),
            [node(CPU=3), node(CPU=3)],
            {"CPU": 4.0},
            "no node has 2 CPU free at once for each of 2",
        ),
    ],
)
def test_what_is_missing_is_named(group: Group, nodes: list[Any], free: dict[str, float], words: str) -> None:
    assert words in missing(group, nodes, free)


def test_places_are_told_by_host() -> None:
    assert hosts("shards", ["10.0.0.2", "10.0.0.1", "10.0.0.2"]) == "shards on 10.0.0.1 (1), 10.0.0.2 (0, 2)"


@pytest.mark.ray
def test_on_ray_a_group_is_placed_or_refused_within_its_deadline(ray_cluster: None) -> None:
    from ray.util import placement_group_table

    placement = Placement("run/phase", ClusterOptions(num_workers=2), 1000)
    # Not the CPUs that are free before and after: Ray tells of those late, and of others' too.
    held = {
        found["name"].split("/")[2]: [bundle.get("CPU") for bundle in found["bundles"].values()]
        for found in placement_group_table().values()
        if found["name"].startswith("run/phase/") and found["state"] == "CREATED"
    }
    assert held == {"shards": [None], "workers": [1, 1]}
    assert set(placement.of("shards", 0)) == {"scheduling_strategy", "num_cpus", "num_gpus"}
    twin = Placement("run/phase", ClusterOptions(num_workers=1), 1000)  # another run of the same name
    twin.remove()
    placement.remove()
    with pytest.raises(
        ResourceError, match=r"shards were not placed within 1 s: none of the 1 nodes has .*role=memory"
    ):
        Placement("run/phase", ClusterOptions(shards_on="role=memory", start_timeout=1), 1000)
    with pytest.raises(ResourceError, match="workers were not placed within 1 s: 99 CPU wanted"):
        Placement("run/phase", ClusterOptions(num_workers=99, start_timeout=1), 1000)
