"""What stands in jobs/: every configuration is one that the options accept, every script hands in a verb there is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from psdevise import config
from psdevise.cli.main import VERBS
from psdevise.orchestrator.options import RunOptions

JOBS = Path(__file__).parents[2] / "jobs"
SCRIPTS = {"evaluate.sh": ["/runs/a", "--set", "evaluate.hit_k=[1, 5]"], "predict.sh": ["/runs/a", "p.parquet", "-k1"]}


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda p: p.name)
def test_configurations_are_accepted(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"\$\{(\w+)\}", path.read_text()):
        monkeypatch.setenv(name, str(tmp_path))
    assert config.load(RunOptions, str(path)).name == path.stem


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_hand_in_a_verb_with_all_that_follows(script: str, tmp_path: Path) -> None:
    """A program in Ray's place says with what it was called."""
    ray = tmp_path / "ray"
    ray.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    ray.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", str(JOBS / script), *SCRIPTS[script]]
    called = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True)
    verb = script.removesuffix(".sh")
    entry = ["--working-dir", str(JOBS), "--", "python", "submitted.py", verb]
    assert called.stdout.splitlines() == ["job", "submit", *entry, *SCRIPTS[script]]
    assert (JOBS / "submitted.py").is_file()
    assert verb in VERBS
