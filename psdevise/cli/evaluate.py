"""`psdevise evaluate`: a run's results, made anew where something of it has changed, or word vectors by themselves."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from psdevise.cli.console import console, error_console
from psdevise.cli.imagenet import imagenet
from psdevise.cli.progress import Display
from psdevise.cli.words import words


class _RunOrWords(click.Group):
    """`words` and `imagenet` are verbs of their own; anything else is about a run (one named `words` is `./words`)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = not args or args[0] in self.commands or args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if own else ["run", *args])


@click.group(cls=_RunOrWords)
def evaluate() -> None:
    """Evaluate the finished run in the folder RUN (`psdevise evaluate run --help` has its options), word vectors by
    themselves, or runs by the paper's ImageNet protocol.

    \b
    psdevise evaluate runs/quickstart
    psdevise evaluate words runs/cifar100 --wordsim wordsim353.tsv --neighbors tiger
    psdevise evaluate imagenet --synthetic --out runs/synthetic
    """


evaluate.add_command(words)
evaluate.add_command(imagenet)


@evaluate.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override an option, e.g. evaluate.hit_k.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def run(run: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Evaluate the finished run in the folder RUN and print its table; trained phases are taken as they are.

    \b
    psdevise evaluate runs/quickstart
    psdevise evaluate runs/cifar100 --set "evaluate.hit_k=[1, 5]" --json
    """
    from psdevise import config as configuration
    from psdevise.errors import DataError
    from psdevise.orchestrator.options import RunOptions
    from psdevise.orchestrator.run import execute
    from psdevise.report import markdown, write
    from psdevise.store import join, read_text

    options = configuration.load(RunOptions, join(run, "config.yaml"), overrides)
    if not options.data.has_pictures:
        raise DataError(
            "this run has word vectors alone, and no pictures to evaluate",
            where=run,
            mend=f"psdevise evaluate words {run}",
        )
    # Where it lies now: it may have been moved, and a relative folder was meant from where it was trained.
    folder, name = os.path.split(os.path.abspath(run))
    options = replace(options, folder=folder, name=name)
    with Display(error_console) as display:
        done = execute(options, display, finish=write)
    if as_json:
        click.echo(read_text(join(done.folder, "results.json")), nl=False)
    else:
        console.print(markdown(done.results), highlight=False, markup=False, soft_wrap=True)
