"""A real Prometheus on loopback, with the project's own rules at the pace of a test."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2] / "cluster"
WINDOW = "5s"  # instead of the rules' 1m


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Prometheus:
    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self._url, self._process = f"http://127.0.0.1:{port}", process

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The instant vector; raises for an expression that Prometheus refuses."""
        asked = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        found: list[dict[str, Any]] = self._get(f"/api/v1/query?{urllib.parse.urlencode(asked)}")["result"]
        return found

    def value(self, expression: str, at: float | None = None) -> float:
        (found,) = self.query(expression, at)
        return float(found["value"][1])

    def alerts(self, name: str, state: str = "firing") -> list[dict[str, str]]:
        found = self._get("/api/v1/alerts")["alerts"]
        return [a["labels"] for a in found if a["labels"]["alertname"] == name and a["state"] == state]

    def until(self, what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Polls another process, to a deadline; returns the first answer that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "prometheus has ended"
            try:
                if found := condition():
                    return found
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {seconds:g} s")

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            return json.load(answer)["data"]


def quick(text: str) -> str:
    """Rules with windows and patience of seconds."""
    text = re.sub(r"\[\d+m\]", f"[{WINDOW}]", text)
    return re.sub(r"for: \d+m", "for: 1s", text)


@contextmanager
def prometheus(folder: Path, targets: str) -> Iterator[Prometheus]:
    """
    Args:
        targets: the files that the runs' discovery reads.
    """
    config = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "500ms"}
    (runs,) = [job for job in config["scrape_configs"] if job["job_name"] == "psdevise"]
    runs["file_sd_configs"] = [{"files": [targets], "refresh_interval": "1s"}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config | {"scrape_configs": [runs]}))
    for name in config["rule_files"]:
        (folder / name).write_text(quick((ROOT / "prometheus" / name).read_text()))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(port, process)
        finally:
            process.terminate()
            process.wait(timeout=20)
