"""What all tests share: the place of the shared data, and one local Ray cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for program in ("prometheus", "chromium"):
            if item.get_closest_marker(program) and shutil.which(program) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs Debian's package {program}"))
    items.sort(key=lambda item: item.get_closest_marker("ray") is not None)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, where there is one."""
    path = Path(os.environ.get("PSDEVISE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (path / "cifar100").is_dir():
        pytest.skip("no shared data here: set PSDEVISE_DATA")
    return path


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster for all Ray tests, with more CPUs than the machine has: they wait more than compute."""
    import ray

    from psdevise.runtime.cluster import start_local

    start_local(cpus=4)
    yield
    ray.shutdown()
