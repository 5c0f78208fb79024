"""Hosts of a program's own on one machine: network namespaces on one bridge, each with mounts of its own, so that /tmp
and /dev/shm are its own and only one folder is everybody's. Needs root and Linux.

    host 10.77.0.1 ─┐
    host 10.77.0.2 ─┼─ bridge 10.77.0.254, in a namespace of its own: the desk, a machine of the same network
    host 10.77.0.3 ─┘

Nothing of it is in the machine's own namespaces, so it cannot meet anything there, or others of its kind. Kernel, boot
id, host name and process numbers are the same on all hosts, as in containers: who takes these for a machine is wrong.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import psdevise
from psdevise.errors import ResourceError

CODE = Path(psdevise.__file__).parents[1]
NETWORK = "10.77.0"
DESK = 254
START_SECONDS = 30
# Packets are late and some are lost. Kernels without netem have a bucket: packets wait in a short queue, and are lost
# where it is full.
SLOW = (
    ("netem", "delay", "40ms", "15ms", "loss", "2%", "rate", "20mbit"),
    ("tbf", "rate", "10mbit", "burst", "4kb", "limit", "20kb"),
)


def missing() -> str:
    """Why hosts cannot be made here; empty if they can."""
    for program in ("ip", "tc", "unshare", "nsenter", "mount"):
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
    """Hosts 1 to `count`, and the desk; `shared` is the one folder that all of them see, at the same path.

    As a context: ends every process that lives on them, and takes the namespaces away.

    Args:
        memory: size of each host's /dev/shm.
    """

    def __init__(self, count: int, memory: str = "1g") -> None:
        self._id, self._memory = secrets.token_hex(3), memory
        self._names = {**{i: f"ps{self._id}-{i}" for i in range(1, count + 1)}, DESK: f"ps{self._id}-desk"}
        self._anchors: dict[int, subprocess.Popen[str]] = {}  # each keeps a host's mounts
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Hosts:
        self.shared = Path(tempfile.mkdtemp(prefix="psdevise-hosts-", dir="/var/tmp"))
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _make(self) -> None:
        desk = self._names[DESK]
        for name in self._names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", desk, "link", "add", "bridge", "type", "bridge")
        _ip("-n", desk, "addr", "add", f"{address(DESK)}/24", "dev", "bridge")
        _ip("-n", desk, "link", "set", "bridge", "up")
        for number, name in self._names.items():
            self._anchor(number)
            if number == DESK:
                continue
            _ip("-n", desk, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", desk, "link", "set", f"to{number}", "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{address(number)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    # ------------------------------------------------------------------ processes

    def start(
        self, host: int, command: list[str], environment: Mapping[str, str], log: str, cwd: Path = CODE
    ) -> subprocess.Popen[str]:
        """Starts a program there; what it says goes to `log` in the shared folder."""
        with open(self.shared / log, "w") as file:
            return self._start(host, command, environment, file, cwd)

    def run(
        self, host: int, command: list[str], environment: Mapping[str, str], timeout: float, cwd: Path = CODE
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program there to its end."""
        process = self._start(host, command, environment, subprocess.PIPE, cwd)
        try:
            out, _ = process.communicate(timeout=timeout)
        finally:
            self._end(process)
        return subprocess.CompletedProcess(command, process.returncode, out, "")

    def _start(
        self, host: int, command: list[str], environment: Mapping[str, str], output: IO[str] | int, cwd: Path
    ) -> subprocess.Popen[str]:
        anchor = str(self._anchors[host].pid)
        inside = f"cd {shlex.quote(str(cwd))} && exec {shlex.join(command)}"
        process = subprocess.Popen(
            ["nsenter", "--target", anchor, "--net", "--mount", "sh", "-c", inside],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=dict(environment),
        )
        self._processes.append(process)
        return process

    def _anchor(self, host: int) -> None:
        """Mounts a /tmp and a /dev/shm of the host's own, in which the code stays where it was."""
        kept = [p for p in (CODE, Path(sys.prefix)) if p.is_relative_to("/tmp")]
        lines = ["set -e"]
        for i, path in enumerate(kept):
            keep = shlex.quote(f"{self.shared}/.kept{i}")
            lines += [f"mkdir -p {keep}", f"mount --bind {shlex.quote(str(path))} {keep}"]
        lines += ["mount -t tmpfs tmpfs /tmp", f"mount -t tmpfs -o size={self._memory} tmpfs /dev/shm"]
        for i, path in enumerate(kept):
            place = shlex.quote(str(path))
            lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(f'{self.shared}/.kept{i}')} {place}"]
        lines += ["echo up", "exec sleep infinity"]
        inside = ["ip", "netns", "exec", self._names[host], "unshare", "--mount", "sh", "-c", "\n".join(lines)]
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        made = subprocess.Popen(
            inside, stdin=subprocess.DEVNULL, stdout=pipe, stderr=both, text=True, start_new_session=True
        )
        self._anchors[host] = made
        assert made.stdout is not None
        found = select.select([made.stdout], [], [], START_SECONDS)[0]
        said = made.stdout.readline() if found else "nothing"
        if said != "up\n":
            raise ResourceError(f"a host did not come up: {said.strip()}", where=self._names[host])

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

    # ------------------------------------------------------------------ faults

    def power_off(self, host: int) -> None:
        """Nobody there says good-bye: the link goes first, then all processes."""
        self.link(host, up=False)
        self.kill(host)

    def kill(self, host: int) -> None:
        """Every process that lives there, also what has left its group."""
        listed = subprocess.run(["ip", "netns", "pids", self._names[host]], capture_output=True, text=True, check=False)
        for pid in {int(p) for p in listed.stdout.split()} - {a.pid for a in self._anchors.values()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def link(self, host: int, up: bool) -> None:
        """The cable to a host."""
        _ip("-n", self._names[DESK], "link", "set", f"to{host}", "up" if up else "down")

    def slow_down(self, host: int) -> str:
        """Packets to and from a host are late, and some are lost → by which means.

        Raises:
            ResourceError: this kernel has none.
        """
        for means in SLOW:
            try:
                for name, device in self._ends(host):
                    _tc("-n", name, "qdisc", "replace", "dev", device, "root", *means)
                return means[0]
            except subprocess.CalledProcessError:
                self.speed_up(host)
        raise ResourceError(f"this kernel has none of {', '.join(means[0] for means in SLOW)}")

    def speed_up(self, host: int) -> None:
        """Takes `slow_down` back."""
        for name, device in self._ends(host):
            with suppress(subprocess.CalledProcessError):
                _tc("-n", name, "qdisc", "delete", "dev", device, "root")

    def lost(self, host: int) -> int:
        """Packets that were lost since `slow_down`, in both directions."""
        found = 0
        for name, device in self._ends(host):
            found += sum(q["drops"] for q in json.loads(_tc("-n", name, "-s", "-j", "qdisc", "show", "dev", device)))
        return found

    def _ends(self, host: int) -> list[tuple[str, str]]:
        return [(self._names[DESK], f"to{host}"), (self._names[host], "eth0")]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in self._processes:  # the end of a host is nothing to be gentle about: a head drains for long
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
        for host, name in self._names.items():
            self.kill(host)
            if (anchor := self._anchors.get(host)) is not None:
                anchor.kill()
                anchor.communicate(timeout=30)
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)
        shutil.rmtree(self.shared)


def address(host: int) -> str:
    return f"{NETWORK}.{host}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _tc(*arguments: str) -> str:
    return subprocess.run(["tc", *arguments], check=True, capture_output=True, text=True).stdout
