"""Hosts of a test's own: network namespaces on one bridge, each with its own /tmp and /dev/shm. Needs root.

    head 10.77.0.1 ─┐
    node 10.77.0.2 ─┼─ bridge 10.77.0.254, in a namespace of its own: the user's machine, from which jobs are handed in
    node 10.77.0.3 ─┘

Nothing of it is in the machine's own namespaces, so tests cannot meet anything there, or each other.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
DESK = 254


def missing() -> str:
    """Why hosts cannot be made here; empty if they can."""
    for program in ("ip", "unshare", "mount"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"ps{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    mounted = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    return "" if mounted.returncode == 0 else f"no mount namespaces here: {mounted.stderr.strip()}"


class Hosts:
    """`count` hosts and the desk; `shared` is the one folder that all of them see at the same path.

    As a context: ends every process that was started here, and takes the namespaces away.
    """

    def __init__(self, count: int) -> None:
        self._id = secrets.token_hex(3)
        self._names = {**{i: f"ps{self._id}-{i}" for i in range(1, count + 1)}, DESK: f"ps{self._id}-desk"}
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Hosts:
        self.shared = Path(tempfile.mkdtemp(prefix="psdevise-hosts-", dir="/var/tmp"))
        desk = self._names[DESK]
        for name in self._names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", desk, "link", "add", "bridge", "type", "bridge")
        _ip("-n", desk, "addr", "add", f"{address(DESK)}/24", "dev", "bridge")
        _ip("-n", desk, "link", "set", "bridge", "up")
        for number, name in self._names.items():
            if number == DESK:
                continue
            _ip("-n", desk, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", desk, "link", "set", f"to{number}", "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{address(number)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
        return self

    def start(
        self, host: int, command: list[str], environment: Mapping[str, str], log: str, cwd: Path = ROOT
    ) -> subprocess.Popen[str]:
        """Starts a program there; what it says goes to `log` in the shared folder."""
        with open(self.shared / log, "w") as file:
            return self._start(host, command, environment, file, cwd)

    def run(
        self, host: int, command: list[str], environment: Mapping[str, str], timeout: float, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program there to its end."""
        process = self._start(host, command, environment, subprocess.PIPE, cwd)
        try:
            out, _ = process.communicate(timeout=timeout)
        finally:
            self._end(process)
        return subprocess.CompletedProcess(command, process.returncode, out, "")

    def _start(
        self,
        host: int,
        command: list[str],
        environment: Mapping[str, str],
        output: IO[str] | int,
        cwd: Path = ROOT,
    ) -> subprocess.Popen[str]:
        inside = ["ip", "netns", "exec", self._names[host], "unshare", "--mount", "sh", "-c", self._own(command, cwd)]
        process = subprocess.Popen(
            inside,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=dict(environment),
        )
        self._processes.append(process)
        return process

    def _own(self, command: list[str], cwd: Path) -> str:
        """A shell line that gives the process its own /tmp and /dev/shm, in which the code stays where it was."""
        kept = [p for p in (ROOT, Path(sys.prefix)) if p.is_relative_to("/tmp")]
        lines = ["set -e"]
        for i, path in enumerate(kept):
            keep = shlex.quote(f"{self.shared}/.kept{i}")
            lines += [f"mkdir -p {keep}", f"mount --bind {shlex.quote(str(path))} {keep}"]
        lines += ["mount -t tmpfs tmpfs /tmp", "mount -t tmpfs -o size=1g tmpfs /dev/shm"]
        for i, path in enumerate(kept):
            place = shlex.quote(str(path))
            lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(f'{self.shared}/.kept{i}')} {place}"]
        lines += [f"cd {shlex.quote(str(cwd))}", f"exec {shlex.join(command)}"]
        return "\n".join(lines)

    def _end(self, process: subprocess.Popen[str]) -> None:
        # The group is the process's own: what it started and nothing else.
        for number, wait in ((signal.SIGTERM, 5), (signal.SIGKILL, 30)):
            try:
                os.killpg(process.pid, number)
                process.wait(wait)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in self._processes:  # the end of a host is nothing to be gentle about: a head drains for long
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
        for name in self._names.values():
            for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
                os.kill(int(pid), signal.SIGKILL)  # what has left its group, and lives in our namespace
            _ip("netns", "delete", name)
        shutil.rmtree(self.shared)


def address(host: int) -> str:
    return f"{NETWORK}.{host}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
