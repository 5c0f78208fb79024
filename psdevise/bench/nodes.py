"""A Ray cluster over hosts of a program's own (`namespaces`)."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from psdevise.bench.namespaces import CODE, Hosts, address
from psdevise.errors import DeadlineExceeded, ResourceError

PORT = 6379
HEAD = f"{address(1)}:{PORT}"
START_SECONDS = 120
POLL_SECONDS = 0.1


class Nodes:
    """A head without CPUs on host 1, and what joins it from the others; a token of its own keeps others out.

    Args:
        memory: bytes of each node's object store.
        more: further environment of Ray's processes.

    Attributes:
        environment: of programs on the hosts: this one's, without what it knows of other clusters.
    """

    def __init__(self, hosts: Hosts, memory: int = 200_000_000, more: Mapping[str, str] | None = None) -> None:
        kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "http_proxy", "https_proxy")}
        own = {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.hosts, self._memory, self.environment = hosts, memory, kept | own | token | dict(more or {})
        self._logs: list[tuple[subprocess.Popen[str], Path]] = []
        self._start(1, ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"])
        self.ready()

    def join(self, host: int, role: str = "", resource: str = "") -> None:
        """Starts a node with one CPU; `ready` waits for it.

        Args:
            role: value of its label `role`.
            resource: what it alone has one of.
        """
        more = [f"--labels=role={role}"] if role else []
        more += [f"--resources={json.dumps({resource: 1})}"] if resource else []
        self._start(host, [f"--address={HEAD}", "--num-cpus=1", *more])

    def ready(self) -> None:
        """Waits for the nodes that were started.

        Raises:
            ResourceError: one ended instead.
            DeadlineExceeded: one took longer than `START_SECONDS`.
        """
        wait(lambda: all(map(_is_up, self._logs)), START_SECONDS, lambda: "\n".join(_end(log) for _, log in self._logs))
        self._logs = []

    def _start(self, host: int, options: list[str]) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        common = [f"--node-ip-address={address(host)}", f"--object-store-memory={self._memory}"]
        name = f"ray-on-{host}-{secrets.token_hex(3)}.log"
        process = self.hosts.start(host, [*ray, *common, *options], self.environment, name)
        self._logs.append((process, self.hosts.shared / name))


def _is_up(started: tuple[subprocess.Popen[str], Path]) -> bool:
    process, log = started
    if process.poll() is not None:
        raise ResourceError(f"Ray ended: {_end(log)}")
    return "Ray runtime started" in log.read_text()


def _end(log: Path) -> str:
    return f"{log.name}: {log.read_text()[-2000:]}"


def wait(until: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """
    Raises:
        DeadlineExceeded: `what` it was that did not come.
    """
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise DeadlineExceeded(f"after {seconds:g} s: {what()}")
        time.sleep(POLL_SECONDS)
