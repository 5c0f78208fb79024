"""Ray's job server, from outside the cluster: hand a run in, follow its log, stop it, ask how it ended.

The working directory travels with the job. With `install`, so do psdevise itself and the names and versions of the
packages it needs, and the nodes need only Ray.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from psdevise.errors import ConfigError, ResourceError

# What a working directory often holds and no job reads; Ray leaves out what .gitignore and .rayignore name as well.
LEFT_OUT = (".git", ".venv", "runs", "**/__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache", ".pytest_cache")
STOP_SECONDS = 120  # a run that is stopped first finishes its slices and writes a snapshot
RUN = ("python", "-m", "psdevise.cli.main")


@dataclass(frozen=True)
class Ended:
    """How a job ended: Ray's status, its message, and the driver's exit code where there was a driver."""

    status: str
    message: str
    exit_code: int | None


class JobServer:
    """
    Args:
        address: http://HOST:8265. Where token authentication is on, Ray reads the token from RAY_AUTH_TOKEN or
            RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token.

    Raises:
        ResourceError: nobody answers there, or the token is not the cluster's.
    """

    def __init__(self, address: str) -> None:
        try:
            self._client = JobSubmissionClient(address)
        except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as e:
            raise ResourceError(
                _first_line(e),
                where=f"job server at {address}",
                mend="is it the dashboard's address (port 8265)? With token authentication, set RAY_AUTH_MODE=token"
                " and RAY_AUTH_TOKEN",
            ) from e
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):  # ours says where the job goes
            logging.getLogger(name).setLevel(logging.ERROR)

    def submit(self, arguments: Sequence[str], environment: Mapping[str, Any], name: str) -> str:
        """Runs `psdevise ARGUMENTS` as a job; its id.

        Args:
            environment: as `runtime_environment` makes it.

        Raises:
            ConfigError: the working directory is too large to travel.
        """
        try:
            return str(
                self._client.submit_job(
                    entrypoint=shlex.join([*RUN, *arguments]),
                    runtime_env=dict(environment),
                    metadata={"psdevise": name},
                )
            )
        except ValueError as e:
            mend = "leave data out with --exclude; put it on storage that all nodes see"
            raise ConfigError(_first_line(e), where=str(environment.get("working_dir", "")), mend=mend) from e
        except (ConnectionError, RuntimeError) as e:
            raise ResourceError(_first_line(e), where="job server") from e

    async def follow(self, job: str, seen: int = 0) -> AsyncIterator[str]:
        """The job's log from character `seen` on, as it grows, until the job ends; a broken connection is made anew.

        Raises:
            ResourceError: the job server has been away for a minute.
        """
        away: float | None = None
        while True:
            position = 0
            try:
                async for text in self._client.tail_job_logs(job):
                    away = None
                    position += len(text)
                    if position > seen:
                        yield text[-(position - seen) :]
                        seen = position
                if self._status(job).is_terminal():
                    return
            except (ConnectionError, RuntimeError, OSError) as e:
                away = away or time.monotonic()
                if time.monotonic() - away > 60:
                    raise ResourceError(_first_line(e), where="job server", mend=f"the job goes on: {job}") from e
            await asyncio.sleep(0.5)

    def stop(self, job: str) -> None:
        """Asks the job to stop; a run writes a snapshot first."""
        self._client.stop_job(job)

    def ended(self, job: str, timeout: float) -> Ended | None:
        """How the job ended; None if it has not after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            info = self._client.get_job_info(job)
            if info.status.is_terminal():
                return Ended(str(info.status.value), info.message or "", info.driver_exit_code)
            if time.monotonic() > end:
                return None
            time.sleep(0.2)

    def _status(self, job: str) -> JobStatus:
        return self._client.get_job_status(job)


def runtime_environment(
    working_dir: str, exclude: Sequence[str], variables: Mapping[str, str], install: bool
) -> dict[str, Any]:
    """What Ray brings to every node of the job."""
    environment: dict[str, Any] = {
        "working_dir": working_dir,
        "excludes": [*LEFT_OUT, *exclude],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **variables},
    }
    if install:
        import psdevise

        environment["py_modules"] = [str(Path(psdevise.__file__).parent)]
        environment["pip"] = requirements()
    return environment


def requirements() -> list[str]:
    """psdevise's requirements at the versions of this environment; Ray itself is on the nodes already."""
    names = [re.split(r"[\s\[<>=!~;(]", line)[0] for line in metadata.requires("psdevise") or () if "extra" not in line]
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in names if name != "ray"]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
