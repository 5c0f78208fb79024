"""The soak's short form: a tiny world, a fault each second. The long one: python -m tests.campaign.soak --help"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from psdevise.runtime.segment import available


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.skipif(not available, reason="reads Linux's /proc")
def test_runs_come_through_faults_and_nothing_grows() -> None:
    command = [sys.executable, "-m", "tests.campaign.soak", "--tiny", "--cycles", "3"]
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["runs"] >= 3
    assert told["counts"]["worker restarted"] > 0
    assert told["counts"]["shard restarted"] > 0
