"""Real runs over several hosts, token authentication on: a head and two nodes in network namespaces.

Handed in with `ray job submit` and with `psdevise submit` through the job server's address; two runs at once.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from psdevise.bench.namespaces import CODE as ROOT
from psdevise.bench.namespaces import DESK, Hosts, address, missing
from tests.world import TINY

WHY_NOT = missing()
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
BIN = Path(sys.executable).parent
TOKEN = secrets.token_hex(32)
SERVER = f"http://{address(1)}:8265"


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "http_proxy", "https_proxy")}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return kept | own | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Hosts]:
    """A head without CPUs, which holds the driver; a node for shards; a node for the workers of two runs."""
    ray = str(BIN / "ray")
    common = ["--block", "--disable-usage-stats", "--object-store-memory=200000000"]
    with Hosts(3) as hosts:
        head = [ray, "start", "--head", f"--node-ip-address={address(1)}", "--port=6379", "--num-cpus=0"]
        head += ["--dashboard-host=0.0.0.0", "--include-dashboard=true", *common]
        processes = [hosts.start(1, head, environment(), "head.log")]
        wait_for_nodes(hosts, processes, 1)  # a node that finds no head gives up
        for number in (2, 3):
            node = [ray, "start", f"--address={address(1)}:6379", f"--node-ip-address={address(number)}"]
            node += ["--num-cpus=0", "--labels=role=memory"] if number == 2 else ["--num-cpus=4"]
            processes.append(hosts.start(number, [*node, *common], environment(), f"node{number}.log"))
        wait_for_nodes(hosts, processes, 3)
        yield hosts


def wait_for_nodes(hosts: Hosts, processes: list[subprocess.Popen[str]], count: int) -> None:
    ask = f"""
import json, time, urllib.request
end = time.monotonic() + 300
while True:
    try:
        request = urllib.request.Request("{SERVER}/nodes?view=summary", headers={{"Authorization": "Bearer {TOKEN}"}})
        found = json.load(urllib.request.urlopen(request, timeout=5))["data"]["summary"]
        alive = sum(n["raylet"].get("state") == "ALIVE" for n in found)
    except OSError as e:
        alive = repr(e)
    if alive == {count}:
        break
    assert time.monotonic() < end, alive
    time.sleep(0.5)
"""
    done = hosts.run(DESK, [sys.executable, "-c", ask], environment(), timeout=330)
    logs = "\n".join(p.read_text()[-2000:] for p in hosts.shared.glob("*.log"))
    assert done.returncode == 0, done.stdout + logs
    assert [p.poll() for p in processes] == [None] * len(processes), logs


def config(hosts: Hosts, name: str, **changes: Any) -> Path:
    tree = TINY | {"name": name, "folder": str(hosts.shared / "runs"), "baselines": ["softmax"]}
    tree["cluster"] = {"num_workers": 2, "num_shards": 1, "shards_on": "role=memory"}
    tree["language"] = TINY["language"] | {"epochs": 1}
    tree["visual"] = TINY["visual"] | {"epochs": 1}
    tree["joint"] = {"projection": {"epochs": 1, "slices": 20}, "fine_tuning": {"epochs": 0, "slices": 20}}
    folder = hosts.shared / "desk" / name
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree | changes))
    return folder / f"{name}.yaml"


def psdevise_submit(path: Path, *more: str) -> list[str]:
    return [str(BIN / "psdevise"), "submit", path.name, "--address", SERVER, *more]


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def places(run: Path) -> dict[str, set[str]]:
    """role → addresses of the hosts that the run's events name."""
    found: dict[str, set[str]] = {"shards": set(), "workers": set()}
    for event in events(run):
        for role in found:
            if (text := str(event.get("text", ""))).startswith(f"{role} on "):
                found[role] |= {part.split()[0] for part in text.removeprefix(f"{role} on ").split("), ")}
    return found


def words(hosts: Hosts, name: str) -> Path:
    """A run of one phase: vectors of the 225 words that a drawn text is made of."""
    text, drawn = hosts.shared / f"{name}.txt", random.Random(0)
    terms = ["".join(pair) for pair in itertools.product("abcdefghijklmno", repeat=2)]
    text.write_text("\n".join(" ".join(drawn.choices(terms, k=20)) for _ in range(2000)))
    cluster = {"num_workers": 2, "num_shards": 1, "shards_on": "role=memory"}
    tree = {"name": name, "data": {"text": str(text)}, "cluster": cluster, "monitor": {"port": None}}
    tree |= {"vocabulary": {"processes": 1}, "language": TINY["language"] | {"epochs": 4}}
    path = hosts.shared / "desk" / f"{name}-words" / "words.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(tree | {"folder": str(hosts.shared / "other")}))
    return path


def lasted(run: Path) -> tuple[float, float]:
    """Unix times of a run's first and last event."""
    times = [float(e["time"]) for e in events(run)]
    return times[0], times[-1]


@pytest.mark.timeout(900)
def test_two_runs_at_once_each_way_of_handing_in(cluster: Hosts) -> None:
    """Both end with 0 and their artifacts where the configuration says; no actor of one is the other's.

    The same name from two users is where names would meet, so the run of words has that of the other, too.
    """
    first, second = config(cluster, "first"), words(cluster, "first")
    log = cluster.shared / "psdevise-submit"
    other = cluster.start(DESK, psdevise_submit(first), environment(), log.name, cwd=first.parent)
    job = [str(BIN / "ray"), "job", "submit", "--address", SERVER, "--working-dir", str(second.parent), "--"]
    done = cluster.run(
        DESK, [*job, "python", "-m", "psdevise.cli.main", "run", second.name], environment(), timeout=400
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert other.wait(400) == 0, log.read_text()[-4000:]
    assert "✓ evaluate" in log.read_text()
    spans = [lasted(cluster.shared / folder / "first") for folder in ("runs", "other")]
    assert max(begin for begin, _ in spans) < min(end for _, end in spans), "both at once"
    for folder in ("runs", "other"):
        run = cluster.shared / folder / "first"
        assert places(run) == {"shards": {address(2)}, "workers": {address(3)}}
        assert [e for e in events(run) if e.get("event") == "Restarted"] == []
    results = json.loads((cluster.shared / "runs/first/results.json").read_text())
    assert {r["system"] for r in results} == {"devise", "softmax"}
    assert list((cluster.shared / "other/first/artifacts").glob("language-*/vectors.bin"))


@pytest.mark.timeout(300)
def test_a_failing_run_gives_its_exit_code_and_its_error(cluster: Hosts) -> None:
    path = config(cluster, "impossible", labels={"table": str(cluster.shared / "nowhere.tsv")})
    done = cluster.run(DESK, psdevise_submit(path), environment(), timeout=200, cwd=path.parent)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "nowhere.tsv" in done.stdout


@pytest.mark.timeout(300)
def test_a_wrong_token_is_refused(cluster: Hosts) -> None:
    path = config(cluster, "stranger")
    stranger = environment() | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = cluster.run(DESK, psdevise_submit(path), stranger, timeout=100, cwd=path.parent)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "job server at" in done.stdout
    assert not (cluster.shared / "runs" / "stranger").exists()
