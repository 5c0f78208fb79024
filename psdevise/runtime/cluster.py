"""Starting, joining and asking Ray."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private import ray_constants

from psdevise.errors import ResourceError
from psdevise.runtime.job import ClusterOptions
from psdevise.runtime.memory import tuned_children

_connected = False  # by `connect`, and so to be ended by `disconnect`


def connect(options: ClusterOptions, namespace: str) -> None:
    """Joins the cluster at `address` (or the one whose job this process is), or starts one in this
    process that has as many CPUs as the workers and shards ask for and listens on loopback only. A program that has
    called `ray.init` itself keeps what it has.

    Raises:
        ResourceError: nothing answers at the address.
    """
    global _connected
    if ray.is_initialized():
        return
    _connected = True
    address = options.address or os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(address=address, namespace=namespace, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise ResourceError(
                str(e).splitlines()[0],
                where=f"Ray at {address}",
                mend="is the cluster up? `ray status --address …`",
            ) from e
        return
    wanted = options.num_workers * options.cpus_per_worker + options.num_shards * options.cpus_per_shard
    start_local(max(os.cpu_count() or 1, math.ceil(wanted)), namespace)


def start_local(cpus: int, namespace: str = "psdevise") -> None:
    """A Ray of this process's own, on loopback, without dashboard; it ends with the process.

    Raises:
        ResourceError: its processes did not come up.
    """
    # Whether a worker computes on a GPU is decided by what it asked for, not by hiding devices from it; saying so
    # keeps Ray from warning of a default that will change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    without_dashboard()
    try:
        with _on_loopback(), tuned_children():
            ray.init(
                address="local",  # never a cluster that happens to run on this machine
                num_cpus=cpus,
                include_dashboard=False,
                namespace=namespace,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
    except Exception as e:  # Ray raises a plain Exception where its own processes did not come up in time
        ray.shutdown()
        raise ResourceError(
            f"Ray did not start: {str(e).splitlines()[0]}",
            where="this machine",
            mend="give the same command again: what was finished is kept; if it goes on, see whether the machine is"
            " out of memory, of disk in /tmp, or much too busy",
        ) from e


# What Ray's processes do for a dashboard that is not there: the head's record of each of the last 100,000 calls of
# actors (14 MB with each run of the embedded default), a look for new log files ten times a second, figures of each
# process every five seconds, and times of all that their event loops do: two hundredths of a core, all the time.
_FOR_NOBODY = {
    "RAY_task_events_report_interval_ms": "0",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_event_stats": "0",
    "RAY_enable_metrics_collection": "0",
}


def without_dashboard() -> None:
    """From now on the processes of a Ray that is started do nothing that only a dashboard would show."""
    for name, value in _FOR_NOBODY.items():
        os.environ.setdefault(name, value)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray on Linux takes the machine's own address where it is told 127.0.0.1, and then listens on all interfaces. On
    macOS and Windows it does as it is told; this switch, which its processes inherit, makes it so everywhere."""
    before = os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        if before[0] is not None:
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = before[0]
        ray_constants.ENABLE_RAY_CLUSTER = before[1]


def check_resources(options: ClusterOptions) -> None:
    """
    Raises:
        ResourceError: the cluster can never place the workers and shards; names the resource. Nodes that
            an autoscaler could add are not known here, so on such a cluster only the deadline tells.
    """
    have = ray.cluster_resources()
    workers = options.first_workers
    gpu_workers = workers if options.gpu_workers is None else min(workers, options.gpu_workers)
    need = {
        "CPU": workers * options.cpus_per_worker + options.num_shards * options.cpus_per_shard,
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
    global _connected
    if _connected and ray.is_initialized():
        ray.shutdown()
    _connected = False
