"""`psdevise submit`: a run as a job of a Ray cluster, followed from here."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psdevise.cli.console import console, error_console
from psdevise.errors import ConfigError

if TYPE_CHECKING:
    from psdevise.runtime.submission import JobServer


@click.command(epilog="The exit code is the driver's. Token authentication: RAY_AUTH_MODE=token RAY_AUTH_TOKEN=…")
@click.argument("config", type=click.Path(exists=True, dir_okay=False))
@click.option("--address", envvar="RAY_API_SERVER_ADDRESS", required=True, help="Ray's job server, http://HEAD:8265.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one option; may be repeated.")
@click.option("--from", "redo_from", metavar="PHASE", help="Run this phase anew, and all that need it.")
@click.option(
    "--working-dir",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder that travels with the job; CONFIG lies in it.",
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="What of it stays here, as .gitignore writes it.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Environment variable of the job.")
@click.option("--install", is_flag=True, help="Bring psdevise and its packages along: the nodes need only Ray.")
@click.option("--no-wait", is_flag=True, help="Return when the job is handed in.")
def submit(
    config: str,
    address: str,
    overrides: tuple[str, ...],
    redo_from: str | None,
    working_dir: str,
    exclude: tuple[str, ...],
    variables: tuple[str, ...],
    install: bool,
    no_wait: bool,
) -> None:
    """Run CONFIG on the cluster whose job server is at ADDRESS, and show its log until it ends.

    Ctrl-C asks whether to stop the job.

    \b
    psdevise submit jobs/quickstart.yaml --address http://head:8265 --set folder=/shared/runs
    psdevise submit jobs/cifar100.yaml --address http://head:8265 --set folder=s3://bucket/runs \\
        --env PSDEVISE_DATA=/shared/data --install
    """
    environment = dict(_pair(v) for v in variables)
    inside = _inside(config, working_dir)
    name = _checked(config, overrides, environment)

    from psdevise.runtime.submission import JobServer, runtime_environment

    server = JobServer(address)
    arguments = ["run", inside, *(word for o in overrides for word in ("--set", o))]
    if redo_from:
        arguments += ["--from", redo_from]
    packed = runtime_environment(os.path.abspath(working_dir), exclude, environment, install)
    job = server.submit(arguments, packed, name)
    error_console.print(f"job {job} at {address}: {name}", highlight=False, soft_wrap=True)
    if no_wait:
        error_console.print(f"follow it: ray job logs --address {address} --follow {job}", highlight=False)
        return
    click.get_current_context().exit(_follow(server, job, address))


def _follow(server: JobServer, job: str, address: str) -> int:
    """Shows the log to its end; the exit code."""
    seen = 0

    async def stream() -> None:
        nonlocal seen
        async for text in server.follow(job, seen):
            seen += len(text)
            console.file.write(text)
            console.file.flush()

    stopping = False
    while True:
        try:
            asyncio.run(stream())
            ended = server.ended(job, timeout=60)
            break
        except KeyboardInterrupt:
            if stopping:
                error_console.print(f"left alone while it stops: {job}")
                return 130
            match _asked():
                case "stop":
                    stopping = True
                    server.stop(job)
                    error_console.print("stopping; a snapshot is written first (Ctrl-C leaves at once)")
                case "leave":
                    follow = f"ray job logs --address {address} --follow {job}"
                    error_console.print(f"the job goes on; follow it: {follow}", soft_wrap=True)
                    return 130
    if ended is None:
        error_console.print(f"the log has ended, the job has not: ray job status --address {address} {job}")
        return 1
    word = f"job {job} {ended.status.lower()}"
    error_console.print(word, highlight=False)
    if ended.status == "STOPPED":
        return 130
    if ended.status == "FAILED" and ended.exit_code in (None, 0):
        error_console.print(ended.message, markup=False, highlight=False, soft_wrap=True)
        return 1
    return ended.exit_code or 0


def _asked() -> str:
    """What Ctrl-C means; where nobody can answer, the job is left to itself."""
    try:
        choice = click.Choice(["stop", "leave", "go-on"])
        return str(
            click.prompt("\nstop the job, leave it running, or go on watching?", type=choice, default="go-on", err=True)
        )
    except click.Abort:
        return "leave"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--env {text!r}: expected NAME=VALUE")
    return name, value


def _inside(config: str, working_dir: str) -> str:
    """The configuration's path as the job sees it."""
    try:
        return str(Path(config).resolve().relative_to(Path(working_dir).resolve()))
    except ValueError as e:
        mend = "give --working-dir the folder that holds it"
        raise ConfigError(f"it does not lie in {working_dir}", where=config, mend=mend) from e


def _checked(config: str, overrides: tuple[str, ...], variables: dict[str, str]) -> str:
    """Refuses here what the driver would refuse, and a run folder that would vanish with the job; the run's name."""
    from psdevise import config as configuration
    from psdevise.orchestrator.options import RunOptions

    os.environ.update(variables)  # what ${NAME} will be on the cluster
    options = configuration.load(RunOptions, config, overrides)
    if "://" not in options.folder and not os.path.isabs(options.folder):
        raise ConfigError(
            f"{options.folder!r} is relative: it would lie in the job's own folder, and go with it",
            where="folder",
            mend="name storage that all nodes see: --set folder=/shared/runs or s3://bucket/runs",
        )
    return options.name
