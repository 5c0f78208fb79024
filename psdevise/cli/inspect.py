"""`psdevise inspect`: what a run folder holds."""

from __future__ import annotations

import click
from rich.table import Table

from psdevise.cli.console import console


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.option("--labels", is_flag=True, help="Show how every label got its vector.")
def inspect(run: str, labels: bool) -> None:
    """Show the phases, artifacts, snapshots and labels of the run in the folder RUN.

    \b
    psdevise inspect runs/quickstart
    psdevise inspect runs/quickstart --labels
    """
    from psdevise import store
    from psdevise.errors import DataError
    from psdevise.server import snapshot

    if not store.exists(store.join(run, "run.json")):
        raise DataError("no run here", where=run, mend="give the folder that `psdevise run` printed")
    about = store.read_json(store.join(run, "run.json"))
    console.print(f"[bold]{about['name']}[/]  seed {about['seed']}  format {about['format']}", highlight=False)
    table = Table("phase", "key", "figures", box=None, pad_edge=False)
    for name in store.listing(store.join(run, "artifacts")):
        path = store.join(run, "artifacts", name, "artifact.json")
        if store.exists(path):
            artifact = store.read_json(path)
            shown = {k: v for k, v in artifact["figures"].items() if isinstance(v, (int, float, str))}
            table.add_row(artifact["phase"], artifact["key"], ", ".join(f"{k} {v}" for k, v in shown.items()))
    console.print(table)
    for name in store.listing(store.join(run, "snapshots")):
        for part in ("", "projection", "tuning"):
            numbers = snapshot.numbers(store.join(run, "snapshots", name, part).rstrip("/"))
            if numbers:
                console.print(f"unfinished: {name} {part}, snapshots {numbers}", highlight=False)
    for name in store.listing(store.join(run, "artifacts")):
        path = store.join(run, "artifacts", name, "doctor.json")
        if labels and name.startswith("labels-") and store.exists(path):
            doctor = Table("label", "found as", "term", "count", box=None, pad_edge=False)
            for row in store.read_json(path)["rows"]:
                doctor.add_row(row["label"], row["how"], row["term"], str(row["count"]))
            console.print(doctor)
