"""`psdevise evaluate`: a run's results, made anew where something of it has changed."""

from __future__ import annotations

import click

from psdevise.cli.console import console, error_console
from psdevise.cli.progress import Display


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override an option, e.g. evaluate.hit_k.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def evaluate(run: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Evaluate the finished run in the folder RUN and print its table; trained phases are taken as they are.

    \b
    psdevise evaluate runs/quickstart
    psdevise evaluate runs/cifar100 --set "evaluate.hit_k=[1, 5]" --json
    """
    from psdevise import config as configuration
    from psdevise.orchestrator.options import RunOptions
    from psdevise.orchestrator.run import execute
    from psdevise.report import markdown, write
    from psdevise.store import join, read_text

    options = configuration.load(RunOptions, join(run, "config.yaml"), overrides)
    with Display(error_console) as display:
        done = execute(options, display, finish=write)
    if as_json:
        click.echo(read_text(join(done.folder, "results.json")), nl=False)
    else:
        console.print(markdown(done.results), highlight=False, markup=False, soft_wrap=True)
