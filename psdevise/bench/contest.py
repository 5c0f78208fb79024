"""Systems that are alive all the time and compute only in their turns.

Every system is a program of its own with its own gate. Between its turns all its processes, Ray's daemons among them,
are stopped (SIGSTOP): whoever computes has the machine to itself, with its own daemons and nobody else's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from psdevise import store
from psdevise.bench.gate import Gate
from psdevise.errors import BenchmarkFailed

CORES = 2
START_SECONDS = 300.0
TURN_PATIENCE = 240.0  # a step of the largest model, on a busy machine, and then some
SETTLE_SECONDS = 0.3
KILL_SECONDS = 10.0
# One thread each, no niceness of Ray's own, and no daemon that takes a long stop for a death.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",
    "RAY_health_check_failure_threshold": "100000",
    "RAY_health_check_timeout_ms": "3600000",
    "RAY_health_check_period_ms": "60000",
    "RAY_grpc_keepalive_time_ms": "3600000",
    "RAY_grpc_keepalive_timeout_ms": "3600000",
    "RAY_grpc_client_keepalive_time_ms": "3600000",
    "RAY_grpc_client_keepalive_timeout_ms": "3600000",
    "GLOO_SOCKET_IFNAME": "lo",
    "TP_SOCKET_IFNAME": "lo",
}


@dataclass(frozen=True)
class Program:
    """`module` is run as `python -m module SPECIFICATION.json` with these further keys; `batch` pictures a step."""

    module: str
    specification: Mapping[str, Any]
    workers: int
    batch: int


class System:
    """One program, from its start to its result."""

    def __init__(self, name: str, program: Program, folder: str) -> None:
        self.name, self._program = name, program
        os.makedirs(folder)
        self._result, self._log = os.path.join(folder, "result.json"), os.path.join(folder, "log")
        gate = os.path.join(folder, "gate")
        self._gate = Gate.create(gate, program.workers)
        specification = {**program.specification, "gate": gate, "folder": folder, "result": self._result}
        path = os.path.join(folder, "specification.json")
        store.write_json(path, specification)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program.module, path],
                env=os.environ | ENVIRONMENT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_on_two_cores,
            )
        self._paused = False

    def start(self, seconds: float, setting: int = 0) -> None:
        """Waits until all workers have made a step, then lets them warm up for so long."""
        self.turn(0, START_SECONDS, setting)
        self.turn(seconds, setting=setting)

    def turn(self, seconds: float, patience: float = TURN_PATIENCE, setting: int = 0) -> float:
        """Pictures per second of one turn; `setting` is handed to the workers.

        Raises:
            BenchmarkFailed: the program ended, or did not come to its turn's end.
        """
        self._go_on()
        self._gate.open(seconds, setting)
        self._wait(lambda: self._gate.ended, seconds + patience, "did not come to the end of its turn")
        self._pause()
        return self._gate.rate() * self._program.batch

    def end(self) -> dict[str, Any]:
        """Lets the program finish what is under way; its result.

        Raises:
            BenchmarkFailed: it has none.
        """
        self._go_on()
        self._gate.finish()
        self._wait(lambda: self._process.poll() is not None, START_SECONDS, "did not end")
        if self._process.returncode or not store.exists(self._result):
            raise self._failed(f"ended with exit code {self._process.returncode}")
        return dict(store.read_json(self._result))

    def kill(self) -> None:
        """Ends all that is left of it."""
        end = time.monotonic() + KILL_SECONDS
        while (pids := self._processes()) and time.monotonic() < end:
            _send(pids, signal.SIGKILL)
            self._process.poll()
            time.sleep(0.05)

    # ------------------------------------------------------------------ processes

    def _processes(self) -> list[int]:
        """All of the program's session, also those whose parent is gone."""
        return [pid for pid in psutil.pids() if _session(pid) == self._process.pid]

    def _pause(self) -> None:
        """Until no new child has appeared."""
        stopped: set[int] = set()
        while new := set(self._processes()) - stopped:
            _send(new, signal.SIGSTOP)
            stopped |= new
        self._paused = True

    def _go_on(self) -> None:
        if self._paused:
            _send(self._processes(), signal.SIGCONT)
            self._paused = False
            time.sleep(SETTLE_SECONDS)  # timers that ran out meanwhile

    def _wait(self, ready: Any, seconds: float, problem: str) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None:
                if ready():
                    return
                raise self._failed(f"ended with exit code {self._process.returncode}")
            if time.monotonic() > end:
                raise self._failed(f"{problem} within {seconds:g} s")
            time.sleep(0.005)

    def _failed(self, problem: str) -> BenchmarkFailed:
        with open(self._log, errors="replace") as log:
            tail = " | ".join(line.strip() for line in log.readlines()[-5:])
        return BenchmarkFailed(f"{problem}; its last words: {tail}", where=f"system {self.name}")


def _on_two_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, number)
