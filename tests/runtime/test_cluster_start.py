"""A Ray that does not come up is a clear error."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys

import psutil
import pytest
import ray

from psdevise.errors import ResourceError
from psdevise.runtime.cluster import connect, disconnect, start_local
from psdevise.runtime.job import ClusterOptions
from psdevise.runtime.memory import FOR_TRAINING, TUNABLES, tuned_children


def test_a_ray_that_does_not_come_up_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ResourceError, match=r"timed out during startup(.|\n)*same command again"):
        start_local(1)


@pytest.mark.ray
def test_a_ray_of_our_own_listens_on_loopback_only(ray_cluster: None) -> None:
    @ray.remote(num_cpus=0)
    class Somebody:
        def there(self) -> bool:
            return True

    somebody = Somebody.remote()
    assert ray.get(somebody.there.remote(), timeout=60)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    names = {p.name() for p in processes}
    assert {"gcs_server", "raylet"} <= names
    listening = [c for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) > 4  # of Ray's control service, raylet, agents, workers and this driver
    for connection in listening:
        address = ipaddress.ip_address(connection.laddr.ip)
        mapped = getattr(address, "ipv4_mapped", None)
        assert (mapped or address).is_loopback, connection
    ray.kill(somebody)


@pytest.mark.ray
def test_a_ray_that_was_there_before_a_run_is_there_after_it(ray_cluster: None) -> None:
    connect(ClusterOptions(), "psdevise")
    disconnect()
    assert ray.is_initialized()


@pytest.mark.parametrize("own", [None, "glibc.malloc.hugetlb=0"])
def test_processes_are_started_with_memory_set_for_training(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set comes last, and so counts; this process's own environment is as it was."""
    monkeypatch.delenv(TUNABLES, raising=False)
    if own is not None:
        monkeypatch.setenv(TUNABLES, own)
    with tuned_children():
        told = subprocess.run(
            [sys.executable, "-c", f"import os; print(os.environ['{TUNABLES}'])"], capture_output=True, text=True
        )
    assert told.stdout.strip() == (FOR_TRAINING if own is None else f"{FOR_TRAINING}:{own}")
    assert os.environ.get(TUNABLES) == own


@pytest.mark.ray
def test_ray_s_own_workers_are_started_so(ray_cluster: None) -> None:
    @ray.remote(num_cpus=0)
    def tunables() -> str | None:
        return os.environ.get(TUNABLES)

    assert FOR_TRAINING in (ray.get(tunables.remote(), timeout=60) or "")
