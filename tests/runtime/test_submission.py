"""`psdevise submit` without a cluster: what travels, what is refused here, what Ctrl-C and the exit codes mean."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from psdevise.cli import submit as verb
from psdevise.cli.main import exit_code
from psdevise.errors import ResourceError
from psdevise.runtime import submission
from psdevise.runtime.submission import Ended, JobServer, requirements, runtime_environment
from tests.world import TINY


class Server:
    """A job server whose log breaks off with Ctrl-C after each of `logs` but the last."""

    def __init__(self, logs: list[str], ended: Ended | None) -> None:
        self._logs, self._ended = logs, ended
        self.text = "".join(logs)
        self.stopped = False
        self.submitted: list[Any] = []

    def __call__(self, address: str) -> Server:
        self.address = address
        return self

    def submit(self, *arguments: Any) -> str:
        self.submitted.append(arguments)
        return "job-1"

    async def follow(self, job: str, seen: int = 0) -> AsyncIterator[str]:
        while self._logs:
            part = self._logs.pop(0)
            assert self.text[seen:].startswith(part), "goes on after what was shown"
            seen += len(part)
            yield part
            if self._logs:
                raise KeyboardInterrupt

    def stop(self, job: str) -> None:
        self.stopped = True

    def ended(self, job: str, timeout: float) -> Ended | None:
        return self._ended


def submit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server, *more: str) -> tuple[int, str]:
    monkeypatch.setattr(submission, "JobServer", server)
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(yaml.safe_dump(TINY | {"folder": "/shared/runs"}))
    shown = io.StringIO()
    monkeypatch.setattr(verb, "console", Console(file=shown))
    monkeypatch.setattr(verb, "error_console", Console(file=shown, width=200))
    return exit_code(["submit", "c.yaml", "--address", "http://head:8265", *more]), shown.getvalue()


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Ended("SUCCEEDED", "", 0), 0),
        (Ended("FAILED", "Job entrypoint command failed with exit code 2", 2), 2),
        (Ended("FAILED", "the driver's node died", None), 1),
        (Ended("STOPPED", "", None), 130),
        (None, 1),
    ],
)
def test_the_exit_code_is_the_drivers(
    ended: Ended | None, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert submit(monkeypatch, tmp_path, Server(["all\n"], ended))[0] == code


def test_what_travels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Server(["hello\n"], Ended("SUCCEEDED", "", 0))
    more = ["--set", "seed=3", "--from", "visual", "--env", "PSDEVISE_X=y", "--exclude", "*.tar"]
    code, text = submit(monkeypatch, tmp_path, server, *more)
    assert (code, server.address) == (0, "http://head:8265")
    assert "hello\n" in text
    ((arguments, environment, name),) = server.submitted
    assert arguments == ["run", "c.yaml", "--set", "seed=3", "--from", "visual"]
    assert name == "tiny"
    assert environment["working_dir"] == str(tmp_path)
    assert {"*.tar", ".git", "runs"} <= set(environment["excludes"])
    assert environment["env_vars"]["PSDEVISE_X"] == "y"
    assert "pip" not in environment


def test_nodes_that_have_only_ray_get_the_rest() -> None:
    environment = runtime_environment("/here", (), {}, install=True)
    assert Path(environment["py_modules"][0], "__init__.py").exists()
    found = dict(line.split("==") for line in requirements())
    assert {"torch", "numpy", "pyarrow"} <= set(found)
    assert "ray" not in found
    assert "pytest" not in found, "what only tests need stays here"
    assert all("+" not in version for version in found.values())


@pytest.mark.parametrize(
    ("answers", "code", "stopped", "words"),
    [("stop\n", 130, True, "stopping"), ("leave\n", 130, False, "--follow job-1"), ("go-on\n", 0, False, "one two")],
)
def test_ctrl_c_asks(
    answers: str, code: int, stopped: bool, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = Ended("STOPPED", "", None) if stopped else Ended("SUCCEEDED", "", 0)
    server = Server(["one ", "two\n"], ended)
    monkeypatch.setattr(verb, "_asked", lambda: answers.strip())
    found, text = submit(monkeypatch, tmp_path, server)
    assert (found, server.stopped) == (code, stopped)
    assert words in text


def test_where_nobody_can_answer_the_job_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with CliRunner().isolation(input=""):
        assert verb._asked() == "leave"


def test_what_the_driver_would_refuse_is_refused_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "c.yaml"
    path.write_text(yaml.safe_dump(TINY))
    base = ["submit", str(path), "--address", "http://127.0.0.1:1"]
    for more, words in (
        ([], "relative"),
        (["--set", "nmae=x"], "did you mean 'name'"),
        (["--working-dir", str(tmp_path / "in"), "--env", "x"], "NAME=VALUE"),
    ):
        assert exit_code([*base, *more]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    monkeypatch.chdir(tmp_path / "in")
    (tmp_path / "out").mkdir()
    assert exit_code([*base, "--working-dir", str(tmp_path / "out")]) == 2
    assert "does not lie in" in " ".join(capsys.readouterr().err.split())


def test_nobody_at_the_address_is_an_expected_error() -> None:
    with pytest.raises(ResourceError, match=r"job server at http://127\.0\.0\.1:1"):
        JobServer("http://127.0.0.1:1")


def test_a_broken_log_connection_is_made_anew_and_nothing_is_shown_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, address: str) -> None:
            self.tries = 0

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            self.tries += 1
            yield "one "
            if self.tries == 1:
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield "two "
            yield "three"

        def get_job_status(self, job: str) -> submission.JobStatus:
            return submission.JobStatus.SUCCEEDED

    monkeypatch.setattr(submission, "JobSubmissionClient", Client)

    async def read() -> list[str]:
        return [text async for text in JobServer("http://x").follow("job")]

    assert asyncio.run(read()) == ["one ", "two ", "three"]
