"""A Ray that does not come up is a clear error."""

from __future__ import annotations

import pytest
import ray

from psdevise.errors import ResourceError
from psdevise.runtime.cluster import start_local


def test_a_ray_that_does_not_come_up_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ResourceError, match=r"timed out during startup(.|\n)*same command again"):
        start_local(1)
