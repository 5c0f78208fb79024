"""Where shards and workers go: a placement group of each, reserved whole or not at all; and one for each worker that
may come later, which an autoscaler sees as well.

Shards are spread over nodes, away from spot nodes (Ray's node label ray.io/market-type=spot): a node's end then takes
few of them, and none of their own accord. Workers are packed, so that those with GPUs share nodes. The groups hold
the CPUs and the memory; the actors in them hold only their GPUs, so that one that replaces a dead one never waits for
what that has not given back yet.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from psdevise.errors import ResourceError
from psdevise.runtime.job import ClusterOptions
from psdevise.server.layout import Layout

SPOT = "ray.io/market-type"
Bundle = dict[str, float]
MEGABYTE = 1e6


@dataclass(frozen=True)
class Group:
    """What one role asks for: a bundle of resources for each actor, on nodes with these labels."""

    role: str
    bundles: tuple[Bundle, ...]
    strategy: str
    labels: dict[str, str]


def gpus_of(cluster: ClusterOptions, rank: int) -> float:
    """The GPUs of one worker: the first `gpu_workers` have them."""
    have = cluster.gpu_workers is None or rank < cluster.gpu_workers
    return cluster.gpus_per_worker if have else 0.0


def shard_bytes(layout: Layout) -> int:
    """What the largest shard holds: parameters, accumulators and the copy of both that a snapshot takes."""
    dense = sum(d.size for d in (*layout.dense, *layout.buffers)) / layout.shards
    rows = sum(math.ceil(t.rows / layout.shards) * t.dim for t in layout.tables)
    return math.ceil(4 * 4 * (dense + rows))


def groups(cluster: ClusterOptions, largest_shard: int) -> tuple[Group, ...]:
    """The shards' group, that of the workers that a phase begins with, and one for each that may come later.

    Args:
        largest_shard: bytes that it needs; a megabyte at least, for a group with nothing in it cannot be reserved.
    """
    shard: Bundle = {"memory": max(MEGABYTE, float(largest_shard))}
    if cluster.cpus_per_shard:
        shard["CPU"] = cluster.cpus_per_shard
    workers = []
    for rank in range(cluster.num_workers):
        wanted = {"CPU": cluster.cpus_per_worker, "GPU": gpus_of(cluster, rank)}
        workers.append({k: v for k, v in wanted.items() if v} or {"memory": MEGABYTE})
    labels = {SPOT: "!spot"}
    if cluster.shards_on is not None:
        key, _, value = cluster.shards_on.partition("=")
        labels[key] = value
    return (
        Group("shards", (shard,) * cluster.num_shards, "SPREAD", labels),
        Group("workers", tuple(workers[: cluster.first_workers]), "PACK", {}),
        *(Group(f"worker {r}", (workers[r],), "PACK", {}) for r in range(cluster.first_workers, cluster.num_workers)),
    )


class Placement:
    """The reserved groups of a phase; those of later workers may wait for their nodes.

    Raises:
        ResourceError: a group was not placed within `cluster.start_timeout` seconds; says which resource is missing.
    """

    def __init__(self, name: str, cluster: ClusterOptions, largest_shard: int) -> None:
        self._groups: dict[str, PlacementGroup] = {}
        self._wanted = {group.role: group for group in groups(cluster, largest_shard)}
        for group in self._wanted.values():
            self._groups[group.role] = placement_group(
                list(group.bundles),
                strategy=group.strategy,
                # Ray refuses a name that is taken, and another run may have the same one.
                name=f"{name}/{group.role}/{secrets.token_hex(4)}",
                bundle_label_selector=[group.labels] * len(group.bundles),
            )
        for role in ("shards", "workers"):
            if not self._groups[role].wait(cluster.start_timeout):
                what = self.missing(role)
                self.remove()
                raise ResourceError(
                    f"the {role} were not placed within {cluster.start_timeout:g} s: {what}",
                    where=name,
                    mend="add nodes, ask for less, or raise cluster.start_timeout if nodes are still coming",
                )

    def of(self, role: str, index: int, gpus: float = 0.0) -> dict[str, Any]:
        """Options of the actor in bundle `index` of the group of `role`, or of a later worker."""
        own = role == "workers" and index >= len(self._wanted[role].bundles)
        group, bundle = (f"worker {index}", 0) if own else (role, index)
        strategy = PlacementGroupSchedulingStrategy(self._groups[group], bundle)
        return {"scheduling_strategy": strategy, "num_cpus": 0, "num_gpus": gpus}

    def missing(self, role: str) -> str:
        """What keeps the group of `role`, in words."""
        if self._groups[role].wait(1):
            return "room is reserved, but perhaps on a node that is gone or cannot be reached"
        return missing(self._wanted[role], ray.nodes(), ray.available_resources())

    def remove(self) -> None:
        for group in self._groups.values():
            remove_placement_group(group)


def missing(group: Group, nodes: list[dict[str, Any]], free: dict[str, float]) -> str:
    """Which resource keeps a group from being placed, in words.

    Args:
        nodes: as `ray.nodes()` lists them; free: as `ray.available_resources()` does.
    """
    fitting = [n for n in nodes if n["Alive"] and _fits(n.get("Labels", {}), group.labels)]
    alive = sum(bool(n["Alive"]) for n in nodes)
    if not fitting:
        labels = " and ".join(_selector(key, value) for key, value in group.labels.items())
        return f"none of the {alive} nodes has {labels}"
    total = {name: sum(b.get(name, 0.0) for b in group.bundles) for b in group.bundles for name in b}
    for name, amount in total.items():
        have = sum(n["Resources"].get(name, 0.0) for n in fitting)
        if amount > have:
            return f"{_amount(name, amount)} wanted, the {len(fitting)} nodes for it have {_amount(name, have)}"
        largest = max(n["Resources"].get(name, 0.0) for n in fitting)
        each = max(b.get(name, 0.0) for b in group.bundles)
        if each > largest:
            return f"{_amount(name, each)} wanted on one node, the largest has {_amount(name, largest)}"
    for name, amount in total.items():
        if amount > free.get(name, 0.0):
            return f"{_amount(name, amount)} wanted, {_amount(name, free.get(name, 0.0))} free: others hold the rest"
    want = ", ".join(_amount(name, amount) for name, amount in group.bundles[0].items())
    return f"no node has {want} free at once for each of {len(group.bundles)}"


def beside_the_driver() -> NodeAffinitySchedulingStrategy:
    """On the driver's own node, for what could not outlive it anyway: else another node's end would be the run's."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def hosts(role: str, addresses: list[str]) -> str:
    """shards on 10.0.0.1 (0, 2), 10.0.0.2 (1)"""
    found: dict[str, list[str]] = {}
    for index, address in enumerate(addresses):
        found.setdefault(address, []).append(str(index))
    return f"{role} on " + ", ".join(f"{address} ({', '.join(ranks)})" for address, ranks in sorted(found.items()))


def _fits(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    return all(
        labels.get(key) != value[1:] if value.startswith("!") else labels.get(key) == value
        for key, value in wanted.items()
    )


def _selector(key: str, value: str) -> str:
    return f"not {key}={value[1:]}" if value.startswith("!") else f"{key}={value}"


def _amount(name: str, value: float) -> str:
    return f"{value / 1e9:,.2f} GB of memory" if name == "memory" else f"{value:g} {name}"
