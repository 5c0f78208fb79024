"""`psdevise`: the group of verbs, and the one place that turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback

import click

from psdevise.cli.console import error_console
from psdevise.errors import PsdeviseError

# verb → (module, attribute, one line of help): imported when used, so that --help answers at once.
VERBS = {
    "run": (
        "psdevise.cli.run",
        "run",
        "Train and evaluate what a configuration describes; go on where it stopped.",
    ),
    "submit": ("psdevise.cli.submit", "submit", "Run a configuration as a job of a Ray cluster, and follow it."),
    "data": ("psdevise.cli.data", "data", "Prepare pictures or text as Parquet."),
    "evaluate": ("psdevise.cli.evaluate", "evaluate", "Show a run's results, or evaluate it anew."),
    "predict": ("psdevise.cli.predict", "predict", "Name pictures with any list of terms."),
    "search": ("psdevise.cli.search", "search", "Find the pictures nearest to any terms."),
    "neighbors": ("psdevise.cli.neighbors", "neighbors", "Show the terms nearest to a term."),
    "top": ("psdevise.cli.top", "top", "Show a running job's workers and shards, live."),
    "inspect": ("psdevise.cli.inspect", "inspect", "Show what a run folder holds."),
    "labels": ("psdevise.cli.labels", "labels", "Candidate sets around the seen classes."),
    "compare": ("psdevise.cli.compare", "compare", "Train and evaluate every system of the papers, side by side."),
    "simulate": ("psdevise.cli.simulate", "simulate", "Simulate a cluster with measured costs, before there is one."),
    "bench": ("psdevise.cli.bench", "bench", "Measure speed and memory, beside what it is compared with."),
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="psdevise")
def psdevise() -> None:
    """Train models that name things in pictures they never saw, on a Ray parameter server.

    \b
    psdevise run jobs/quickstart.yaml
    psdevise predict runs/quickstart photo.png --labels my_terms.txt
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 an expected error, 2 usage, 3 a bug of ours, 130 Ctrl-C or SIGTERM."""
    # By default SIGTERM ends a process without its `finally`s, and what it started would go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(exit_code(arguments))


def exit_code(arguments: list[str] | None = None) -> int:
    try:
        found = psdevise.main(args=arguments, standalone_mode=False)
    except PsdeviseError as e:
        error_console.print(f"[bold red]error[/] {type(e).__name__}", highlight=False)
        error_console.print(str(e), markup=False, highlight=False, soft_wrap=True)  # paths stay whole
        return e.exit_code
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        error_console.print("stopped; give the same command again to go on")
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        error_console.print("[bold red]this is a bug of psdevise[/]: please report it with the lines above")
        return 3
    return found if isinstance(found, int) else 0  # click returns what ctx.exit() was given


if __name__ == "__main__":  # `python -m psdevise.cli.main`, where the command is not on the PATH: jobs of a cluster
    main()
