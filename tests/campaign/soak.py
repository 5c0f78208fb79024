"""The same run over and over while parts of it die, files rot and the disk fills up; what holds memory must stay flat.

    python -m tests.campaign.soak --minutes 30        the embedded default
    python -m tests.campaign.soak --cycles 3 --tiny   a world that trains in seconds, as CI does it

Every few seconds one of: kill -9 of a worker, kill -9 of a shard, a byte of a file of the newest snapshot turned, and
(as root, which may mount a small disk for the run) the disk full for a while. A run that ends with an error of the tree
is given the same command again. The driver is this process, on a Ray of its own that lives through all runs.

PSS, USS and open descriptors of driver, workers, shards and Ray's daemons, and the bytes of its object store, are
sampled all the while. Printed at the end: a line through each one's medians by run, with its 95 % interval. Exit status
1 if something grew, if a run ended with anything but the expected errors, or if its ledger does not add up.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import ray

from psdevise import config, store
from psdevise.errors import PsdeviseError, SnapshotError, StoreError
from psdevise.events import Event, Notice, PhaseFinished, Progress, Restarted
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.run import execute
from psdevise.runtime.actor import object_store_bytes
from psdevise.server import snapshot
from tests.campaign.cluster import OwnCluster, kill
from tests.campaign.kills import QUICKSTART, TRAINED
from tests.campaign.memory import Sample, growth, look
from tests.world import TINY

SHORT = ("baselines=[softmax]", "joint.fine_tuning.epochs=0", "visual.epochs=25", "language.epochs=3")
MOST = 5  # times as many cycles as were asked for, while nothing has died
SLACK = {"MB": 8.0, "descriptors": 4.0}  # what may come and go between two runs


@dataclass(frozen=True)
class Pace:
    """Seconds: between two faults, between two samples, and of a full disk. `disk_mb`: the disk's size."""

    faults: tuple[float, float]
    sample: float
    full: float
    disk_mb: int


@dataclass
class Told:
    """What has happened so far. `pids` of the phase under way: role → processes."""

    cycle: int = 0
    phase: str = ""
    pids: dict[str, list[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    last: dict[str, Progress] = field(default_factory=dict)
    stored: float = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Progress(phase) if event.audit:
                self.phase, self.last[phase] = phase, event
                self.pids = {
                    "worker": [int(f.gauges["pid"]) for f in event.figures if "pid" in f.gauges],
                    "shard": [int(s["pid"]) for s in event.shards if "pid" in s],
                }
                if time.monotonic() - self.stored > 1:  # from here, since Ray's driver is this thread
                    self.stored = time.monotonic()
                    self.samples.append(Sample("object store: MB", self.cycle, object_store_bytes() / 1e6))
            case Restarted(role=role, examples=examples):
                self.counts[f"{role} restarted"] += 1
                self.counts["examples again" if role == "worker" else "examples taken back"] += examples
            case Notice(_, text) if "snapshot is broken" in text:
                self.counts["broken snapshot named"] += 1
            case PhaseFinished():
                self.phase, self.pids = "", {}


class Faults:
    """Something goes wrong every few seconds, until it is stopped."""

    def __init__(self, told: Told, folder: Path, disk: bool, pace: Pace, r: Random) -> None:
        self._told, self._folder, self._pace, self._r = told, folder, pace, r
        few = ["worker", "shard", "worker", "shard"]
        self._kinds = [*few, "rot", *few, "rot", *few, *["disk"] * disk]
        self._rotten: set[str] = set()
        self.full = threading.Event()

    def go_on(self, over: threading.Event) -> None:
        for kind in itertools.cycle(self._kinds):
            if over.wait(self._r.uniform(*self._pace.faults)):
                return
            if kind == "rot":
                done = self._rot()
            elif kind == "disk":
                done = self._fill(over)
            else:
                while not (done := self._kill(kind)) and not over.wait(0.2):
                    pass  # none is there just now
            self._told.counts[kind] += done

    def _kill(self, role: str) -> bool:
        pids = self._told.pids.get(role, [])
        return bool(pids) and kill(self._r.choice(pids))

    def _rot(self) -> bool:
        """Turns a byte in the newest snapshot of a phase, where the one before it is whole."""
        for folder in sorted({p.parents[1] for p in self._folder.glob("*/snapshots/**/manifest.json")}):
            with contextlib.suppress(OSError, PsdeviseError):
                numbers = snapshot.numbers(str(folder))
                whole = [n for n in numbers if f"{folder}/{n:06d}" not in self._rotten]
                if len(whole) < 2 or whole[-1] != numbers[-1]:
                    continue
                target = folder / f"{numbers[-1]:06d}"
                self._rotten.add(str(target))
                path = self._r.choice(sorted(target.iterdir()))
                data = bytearray(path.read_bytes())
                data[self._r.randrange(len(data))] ^= 1 << self._r.randrange(8)
                with path.open("r+b") as file:
                    file.write(data)
                return True
        return False

    def _fill(self, over: threading.Event) -> bool:
        """No room on the run's disk for a while."""
        path = self._folder / "filler"
        self.full.set()
        with contextlib.suppress(OSError), path.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        over.wait(self._pace.full)
        path.unlink()
        self.full.clear()
        return True


def soak(options: dict[str, Any], cluster: OwnCluster, pace: Pace, disk: bool, until: float, cycles: int) -> Told:
    """Runs until so many seconds have passed, so many cycles are done, and a worker and a shard have died: a soak in
    which nothing dies proves nothing."""
    told, over = Told(), threading.Event()
    folder = Path(options["folder"])
    faults = Faults(told, folder, disk, pace, Random(0))

    def sample() -> None:
        while not over.wait(pace.sample):
            phase = told.phase
            told.samples.extend(look(f"driver, {phase}" if phase else "driver", os.getpid(), told.cycle))
            for name, pid in cluster.daemons().items():
                told.samples.extend(look(name, pid, told.cycle))
            for role, pids in dict(told.pids).items():
                for pid in pids:
                    told.samples.extend(look(f"{role}, {phase}", pid, told.cycle))

    threads = [threading.Thread(target=faults.go_on, args=(over,)), threading.Thread(target=sample)]
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    try:
        while (
            time.monotonic() - begin < until
            or told.cycle < cycles
            or (told.cycle < MOST * cycles and not (told.counts["worker restarted"] and told.counts["shard restarted"]))
        ):
            one = options | {"name": f"soak-{told.cycle}", "seed": told.cycle}
            _until_done(config.build(RunOptions, one), told, faults)
            _audit(told, [p for p in TRAINED if p.removeprefix("joint-") in ("devise", *one["baselines"], p)])
            shutil.rmtree(folder / one["name"])
            told.cycle += 1
            print(f"{time.monotonic() - begin:5.0f} s, run {told.cycle}: {dict(told.counts)}", flush=True)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return told


def _until_done(options: RunOptions, told: Told, faults: Faults) -> None:
    for _ in range(50):
        try:
            execute(options, told)
            return
        except (StoreError, SnapshotError) as e:
            told.phase, told.pids = "", {}
            name = type(e).__name__
            told.counts[name] += 1
            expected = "no space" in e.what or isinstance(e, SnapshotError)
            if not expected:
                told.problems.append(f"{options.name}: {e}")
            while faults.full.is_set():
                time.sleep(0.1)
        except PsdeviseError as e:
            told.phase, told.pids = "", {}
            told.problems.append(f"{options.name}: {type(e).__name__}: {e}")
    raise RuntimeError(f"{options.name} does not come to its end")


def _audit(told: Told, phases: list[str]) -> None:
    for phase in phases:
        event = told.last.pop(phase, None)
        if event is None or event.done != 1.0 or event.audit["refused"]:
            told.problems.append(f"run {told.cycle}, {phase}: {None if event is None else (event.done, event.audit)}")


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[tuple[str, bool]]:
    """A folder, and whether it is a disk of its own: root may mount one."""
    with tempfile.TemporaryDirectory(prefix="psdevise-soak-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
        try:
            yield folder, mounted
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)


def report(told: Told) -> list[str]:
    """Prints the table; returns what is wrong."""
    problems = list(told.problems)
    print(f"\nruns: {told.cycle}; " + ", ".join(f"{k}: {v:,}" for k, v in sorted(told.counts.items())))
    print("what | runs | level | per run | 95 % interval | flat")
    for one in growth(told.samples):
        slack = SLACK["descriptors" if one.name.endswith("descriptors") else "MB"]
        # A process of one phase is another in each run: what it has of the run before is nothing.
        lasting = not one.name.startswith(("worker", "shard"))
        flat = one.flat(slack) or not lasting
        if not flat:
            problems.append(f"{one.name} grows by {one.slope:.2f} a run")
        figures = f"{one.level:.1f} | {one.slope:+.2f} | {one.low:+.2f} to {one.high:+.2f}"
        print(f"{one.name} | {one.cycles} | {figures} | {('yes' if flat else 'NO') if lasting else 'new each run'}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.0, help="no new run begins after that (default 0)")
    parser.add_argument("--cycles", type=int, default=4, help="runs at least (default 4)")
    parser.add_argument("--tiny", action="store_true", help="a tiny world instead of the embedded default")
    arguments = parser.parse_args()
    pace = Pace((3.0, 6.0), 0.5, 1.0, 64) if arguments.tiny else Pace((3.0, 9.0), 2.0, 5.0, 256)
    default = {"baselines": ["softmax", "random"]} | config.yaml.safe_load(store.read_text(str(QUICKSTART)))
    tree = config.override(TINY, SHORT) if arguments.tiny else default
    shards = 1 if arguments.tiny else 2
    shared = {"num_workers": 2, "num_shards": shards, "snapshot_seconds": 1, "lease_seconds": 20, "max_restarts": 1000}
    with small_disk(pace.disk_mb) as (folder, disk), OwnCluster(0, 3) as cluster:
        options = tree | {
            "folder": folder,
            "cluster": shared | {"host": "ray", "address": cluster.address},
            "monitor": {"port": None},
        }
        # One connection for all runs: each that is made and ended leaves a thread, a descriptor and 3 MB of Ray's.
        ray.init(cluster.address, namespace="psdevise", logging_level=logging.ERROR, log_to_driver=False)
        try:
            told = soak(options, cluster, pace, disk, 60 * arguments.minutes, arguments.cycles)
        finally:
            ray.shutdown()
    problems = report(told)
    left = [p.name() for p in psutil.Process().children(recursive=True) if p.is_running()]
    if left:
        problems.append(f"processes are left: {left}")
    for problem in problems:
        print(f"wrong: {problem}")
    print(json.dumps({"runs": told.cycle, "counts": told.counts, "wrong": len(problems)}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
