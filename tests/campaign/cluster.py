"""A Ray cluster of raylets of our own on this machine, each of which may be killed."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Any

import psutil
from ray._private import ray_constants
from ray.cluster_utils import Cluster

from psdevise.runtime.cluster import without_dashboard


class OwnCluster:
    """A head that holds no workers, and `nodes` raylets of `cpus` each; use it as a context."""

    def __init__(self, nodes: int, cpus: int) -> None:
        self._nodes, self._cpus = nodes, cpus

    def __enter__(self) -> OwnCluster:
        without_dashboard()
        options = {"num_cpus": 0 if self._nodes else self._cpus, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=options)
        for _ in range(self._nodes):
            self.add_node()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self) -> None:
        self._cluster.add_node(num_cpus=self._cpus)

    def daemons(self) -> dict[str, int]:
        """gcs and the raylets → their processes."""
        found = {"gcs": _pid(self._cluster.head_node, ray_constants.PROCESS_TYPE_GCS_SERVER)}
        for i, node in enumerate([self._cluster.head_node, *self._cluster.worker_nodes]):
            found[f"raylet-{i}"] = _pid(node, ray_constants.PROCESS_TYPE_RAYLET)
        return found

    def kill_node_of(self, pid: int) -> bool:
        """kill -9 of the raylet that the process belongs to; False if that is the head's. Another takes its place."""
        above = {p.pid for p in psutil.Process(pid).parents()}
        for node in list(self._cluster.worker_nodes):
            raylet = _pid(node, ray_constants.PROCESS_TYPE_RAYLET)
            if raylet in above:
                os.kill(raylet, signal.SIGKILL)
                self._cluster.remove_node(node, allow_graceful=False)
                self.add_node()
                return True
        return False


def kill(pid: int) -> bool:
    """kill -9 of a process that descends from this one; False if it is gone already.

    Raises:
        PermissionError: it is somebody else's.
    """
    try:
        above = {p.pid for p in psutil.Process(pid).parents()}
        if os.getpid() not in above:
            raise PermissionError(f"process {pid} was not started from here")
        os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def _pid(node: Any, kind: str) -> int:
    return int(node.all_processes[kind][0].process.pid)
