"""`psdevise run`: one command from text and pictures to results and report."""

from __future__ import annotations

import click

from psdevise.cli.console import console, error_console
from psdevise.cli.progress import Display, duration


@click.command(epilog="A stopped run goes on where it stopped when the same command is given again.")
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one option; may be repeated.")
@click.option("--from", "redo_from", metavar="PHASE", help="Run this phase anew, and all that need it.")
@click.option("--dry-run", is_flag=True, help="Open the data and show what would run, with memory and traffic.")
@click.option("--options", "show_options", is_flag=True, help="List every option with its default and meaning.")
def run(
    config: str | None, overrides: tuple[str, ...], redo_from: str | None, dry_run: bool, show_options: bool
) -> None:
    """Train and evaluate what the YAML file CONFIG describes.

    \b
    psdevise run jobs/quickstart.yaml
    psdevise run jobs/cifar100.yaml --set seed=1 --set cluster.num_workers=4
    psdevise run jobs/cifar100.yaml --from joint-devise
    psdevise run jobs/cifar100.yaml --dry-run
    psdevise run --options
    """
    from psdevise import config as configuration
    from psdevise.orchestrator.options import RunOptions
    from psdevise.orchestrator.run import execute
    from psdevise.report import markdown, write

    if show_options:
        for path, default, text in configuration.describe(RunOptions):
            console.print(f"[bold]{path}[/] = {default}", highlight=False, soft_wrap=True)
            console.print(f"    {text}", highlight=False, soft_wrap=True)
        return
    if config is None:
        raise click.UsageError("Missing argument 'CONFIG'.")
    options = configuration.load(RunOptions, config, overrides)
    if dry_run:
        from psdevise.orchestrator.estimate import estimate

        for line in estimate(options):
            console.print(line, highlight=False, soft_wrap=True)
        return
    with Display(error_console) as display:
        done = execute(options, display, redo_from, finish=write)
    console.print()
    if not options.data.has_pictures:
        console.print(f"{duration(done.seconds)}   word vectors: psdevise evaluate words {done.folder}", soft_wrap=True)
        return
    console.print(markdown(done.results), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{duration(done.seconds)}   results {done.folder}/results.json   report {done.folder}/report.html",
        soft_wrap=True,
    )
