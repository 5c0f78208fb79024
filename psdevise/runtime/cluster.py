"""Starting, joining and asking Ray."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray

from psdevise.errors import ResourceError
from psdevise.runtime.job import ClusterOptions


def connect(options: ClusterOptions, namespace: str) -> None:
    """Joins the cluster at `address` (or the one whose job this process is), or starts one in this
    process that has as many CPUs as the workers and shards ask for and listens on loopback only.

    Raises:
        ResourceError: nothing answers at the address.
    """
    if ray.is_initialized():
        return
    address = options.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {
        "namespace": namespace,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
    }
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise ResourceError(
                str(e).splitlines()[0],
                where=f"Ray at {address}",
                mend="is the cluster up? `ray status --address …`",
            ) from e
        return
    wanted = options.num_workers * options.cpus_per_worker + options.num_shards * options.cpus_per_shard
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        num_cpus=max(os.cpu_count() or 1, int(wanted + 0.999)),
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        configure_logging=True,
        **common,
    )


def check_resources(options: ClusterOptions) -> None:
    """
    Raises:
        ResourceError: the cluster can never place the workers and shards; names the resource. Nodes that
            an autoscaler could add are not known here, so on such a cluster only the deadline tells.
    """
    have = ray.cluster_resources()
    gpu_workers = options.num_workers if options.gpu_workers is None else options.gpu_workers
    need = {
        "CPU": options.num_workers * options.cpus_per_worker + options.num_shards * options.cpus_per_shard,
        "GPU": gpu_workers * options.gpus_per_worker,
    }
    for name, amount in need.items():
        if amount > have.get(name, 0.0) and not os.environ.get("PSDEVISE_AUTOSCALING"):
            raise ResourceError(
                f"the run asks for {amount:g} {name}, the cluster has {have.get(name, 0.0):g}",
                where="cluster",
                mend=f"lower cluster.num_workers or cluster.{name.lower()}s_per_worker, or add nodes"
                " (PSDEVISE_AUTOSCALING=1 waits for an autoscaler)",
            )


def disconnect() -> None:
    """Ends a cluster that `connect` started, or leaves the one it joined."""
    if ray.is_initialized():
        ray.shutdown()
