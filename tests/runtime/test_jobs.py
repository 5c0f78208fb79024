"""`ray job submit` against a real local head: a run that ends well, and a failing run that is a failed job."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.world import TINY

pytestmark = pytest.mark.ray
BIN = Path(sys.executable).parent
TOKEN = secrets.token_hex(32)


def environment() -> dict[str, str]:
    """Token authentication stays on: head and client share a token that this process made."""
    kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A Ray head of this test's own on loopback; the address of its job server."""
    ports = [free_port() for _ in range(3)]
    # A short path: the sockets' names below it must stay under 108 characters.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={ports[0]}"]
        command += [f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}"]
        command += ["--num-cpus=2", "--disable-usage-stats", f"--temp-dir={folder}"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment()
        )
        address = f"http://127.0.0.1:{ports[1]}"
        try:
            wait_for(address, process)
            yield address
        finally:
            # The group is this process's own: the head, its raylet, its dashboard, and nothing else.
            os.killpg(process.pid, signal.SIGTERM)
            try:  # it drains for half a minute, and nothing here is worth waiting for
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the job server answers to the token."""
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    end, last = time.monotonic() + 90, ""
    while time.monotonic() < end:
        assert process.poll() is None, "ray start ended"
        try:
            with urllib.request.urlopen(request, timeout=2):
                return
        except OSError as e:
            last = repr(e)
            time.sleep(0.2)
    raise AssertionError(f"the job server did not come up: {last}")


def submit(head: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ray"), "job", "submit", "--address", head, "--", str(BIN / "psdevise"), "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment(), check=False)


@pytest.mark.timeout(300)
def test_a_run_is_a_job_and_a_failing_run_a_failed_job(head: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    tree = TINY | {"folder": str(tmp_path / "runs"), "baselines": ["softmax"]}
    tree["cluster"] = {"num_workers": 1, "num_shards": 1}
    tree["joint"] = TINY["joint"] | {"fine_tuning": {"epochs": 0, "slices": 20}}
    config.write_text(yaml.safe_dump(tree))
    done = submit(head, str(config))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    assert "DeViSE-0" in done.stdout
    assert (tmp_path / "runs" / "tiny" / "results.json").exists()
    failed = submit(head, str(config), "--set", "name=other", "--set", "data.world.parents=99")
    assert failed.returncode != 0
    assert "data.world.parents" in failed.stdout + failed.stderr
    assert "failed" in failed.stdout
