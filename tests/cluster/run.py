"""Runs on a cluster of hosts, looked at while they go on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from psdevise.bench.nodes import HEAD, Nodes, wait

Seen = dict[str, Any]


class Run:
    """`tests.cluster.phase` on the head."""

    def __init__(self, nodes: Nodes, name: str, epochs: int, seconds: float, **changes: Any) -> None:
        self.folder = nodes.hosts.shared / name
        self.folder.mkdir()
        downpour = {"deadline": changes.pop("deadline", 5)}
        cluster = {"num_workers": 3, "num_shards": 2, "shards_on": "role=shards", "snapshot_seconds": 2}
        cluster |= {"lease_seconds": 6, "start_timeout": 60} | changes
        asked = {"cluster": cluster, "downpour": downpour, "epochs": epochs, "seconds": seconds}
        (self.folder / "job.json").write_text(json.dumps(asked))
        program = [sys.executable, "-m", "tests.cluster.phase", str(self.folder)]
        around = nodes.environment | {"RAY_ADDRESS": HEAD}
        self._log = nodes.hosts.shared / f"{name}.log"
        self._process: subprocess.Popen[str] = nodes.hosts.start(1, program, around, self._log.name)

    def events(self, kind: str) -> list[Seen]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [e for e in found if e["event"] == kind]

    def until(self, told: Callable[[Run], Any], seconds: float = 60) -> None:
        """Waits for what the run's events tell, while it goes on."""

        def seen() -> bool:
            assert self._process.poll() is None, self.story()
            return bool(told(self))

        wait(seen, seconds, self.story)

    def done(self, seconds: float = 60) -> Seen:
        wait(lambda: self._process.poll() is not None, seconds, self.story)
        assert self._process.returncode == 0, self.story()
        found: Seen = json.loads((self.folder / "done.json").read_text())
        return found

    @property
    def share(self) -> float:
        """How much of the run is finished, from 0 to 1."""
        seen = self.events("Progress")
        return float(seen[-1]["done"]) if seen else 0.0

    @property
    def restarts(self) -> list[tuple[str, int, str]]:
        return [(e["role"], e["rank"], e["reason"]) for e in self.events("Restarted")]

    @property
    def places(self) -> dict[str, dict[int, str]]:
        """role → rank → host, as the run said at its beginning: shards on 10.0.0.1 (0, 2), 10.0.0.2 (1)"""
        found: dict[str, dict[int, str]] = {"shards": {}, "workers": {}}
        for event in self.events("Notice"):
            role, _, rest = event["text"].partition(" on ")
            for host, ranks in re.findall(r"(\S+) \(([\d, ]+)\)", rest) if role in found else ():
                found[role] |= {int(rank): host for rank in ranks.split(", ")}
        return found

    @property
    def ways(self) -> set[tuple[str, str, str]]:
        """(worker's host, shard's host, kind of link) of the workers that began."""
        hosts, found = self.places["workers"], set()
        for rank, host in hosts.items():
            log = min((self.folder / "logs").glob(f"visual-worker-{rank}-*.jsonl"))
            for line in log.read_text().splitlines():
                for shard, way in re.findall(r"shard \d+ on (\S+): by (\w+)", json.loads(line)["text"]):
                    found.add((host, shard, way))
        return found

    def workers(self) -> set[int]:
        """Ranks that have lately made a step."""
        seen = self.events("Progress")[-1:]
        return {f["worker"] for e in seen for f in e["figures"] if f["steps"] and f["gauges"]["silent_seconds"] < 3}

    def story(self) -> str:
        told = [e for kind in ("Notice", "Restarted") for e in self.events(kind)]
        shown = [{k: v for k, v in e.items() if k in ("text", "role", "rank", "reason", "time")} for e in told]
        last = self.events("Progress")[-1:]
        done = self.folder / "done.json"
        return "\n".join(
            [
                *map(str, sorted(shown, key=lambda e: e["time"])),
                str([{k: v for k, v in e.items() if k != "shards"} for e in last]),
                done.read_text() if done.exists() else "",
                self._log.read_text()[-3000:],
            ]
        )
