"""`psdevise evaluate imagenet`: the DeViSE paper's protocol, from files to its Tables 1 to 4."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from psdevise.cli.console import console, counted_steps

LISTS = {"seen": "synsets_1k.tsv", "every": "synsets_21k.tsv", "is_a": "is_a.tsv"}


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True, file_okay=False))
@click.option("--out", required=True, help="Folder of what is made; the same command goes on in it.")
@click.option("--seen", metavar="FILE", help="Table of the classes trained on: columns wnid, terms.")
@click.option("--all", "every", metavar="FILE", help="Table of all classes: columns wnid, terms.")
@click.option("--is-a", metavar="FILE", help="Table of edges: columns child, parent, relation.")
@click.option("--supervised", metavar="DATA", help="Pictures of the seen classes, labelled with wnids: Table 1.")
@click.option("--unseen", metavar="DATA", help="Pictures of unseen classes, labelled with wnids: Tables 2 and 3.")
@click.option("--split-run", type=click.Path(exists=True, file_okay=False), help="Run on the split's seen classes.")
@click.option("--split-unseen", metavar="FILE", help="The split's unseen wnids, one a line: Table 4.")
@click.option("--split-test", metavar="DATA", help="Pictures of the split's unseen classes: Table 4.")
@click.option("--crops", type=click.Choice(["1", "10"]), default="1", show_default=True, help="Crops averaged over.")
@click.option("--synthetic", is_flag=True, help="Draw pictures near their labels' vectors; needs no run, no picture.")
@click.option("--pictures", default=10_000, show_default=True, type=click.IntRange(1), help="--synthetic: of the seen.")
@click.option("--per-class", default=1, show_default=True, type=click.IntRange(1), help="--synthetic: of each unseen.")
@click.option("--seed", default=0, show_default=True, help="Of drawings and intervals.")
def imagenet(
    runs: tuple[str, ...],
    out: str,
    seen: str | None,
    every: str | None,
    is_a: str | None,
    supervised: str | None,
    unseen: str | None,
    split_run: str | None,
    split_unseen: str | None,
    split_test: str | None,
    crops: str,
    synthetic: bool,
    pictures: int,
    per_class: int,
    seed: int,
) -> None:
    """Evaluate finished RUNS as the DeViSE paper does on ImageNet, and print its Tables 1 to 4.

    The three lists are taken from the folder imagenet/ in PSDEVISE_DATA where they are not given. OUT gets
    results.json, tables.md, and each system's embedded pictures, which are not made again.

    \b
    psdevise evaluate imagenet --synthetic --out runs/synthetic
    psdevise evaluate imagenet runs/imagenet --supervised val/ --unseen fall11/ --out runs/tables
    """
    from psdevise import store
    from psdevise.evaluation import imagenet as protocols
    from psdevise.evaluation import synthetic as drawing
    from psdevise.evaluation.result import plain
    from psdevise.labels.hops import Lists
    from psdevise.labels.space import LabelSpace
    from psdevise.labels.split import Split, read_names
    from psdevise.orchestrator.embed import embed, trained_on
    from psdevise.report.imagenet import markdown

    given = {"seen": seen, "every": every, "is_a": is_a}
    seen_path, every_path, is_a_path = (_list(name, path) for name, path in given.items())
    if not synthetic and not runs and split_run is None:
        raise click.UsageError("give RUNS, or --synthetic")
    if (split_run is None) != (split_test is None) or (split_run is None) != (split_unseen is None):
        raise click.UsageError("Table 4 needs --split-run, --split-unseen and --split-test together")
    lists = Lists.read(seen_path, every_path, is_a_path)
    space = LabelSpace.of_synsets(every_path).joined(LabelSpace.of_synsets(seen_path))
    split = None
    if synthetic:
        split = protocols.draw_split(lists.seen, len(lists.seen) // 5, seed)
    elif split_run is not None and split_unseen is not None:
        unseen_names = set(read_names(split_unseen, lists.seen))
        parts = [tuple(n for n in lists.seen if (n in unseen_names) == apart) for apart in (False, True)]
        split = Split(f"{len(parts[0])}/{len(parts[1])} of {split_unseen.rsplit('/', 1)[-1]}", *parts)
    protocol = protocols.Protocol(lists, split, seed=seed)

    with counted_steps() as bar:

        def shown(what: str) -> Callable[[int, int], None]:
            task = bar.add_task(what, total=None)
            return lambda done, of: bar.update(task, completed=done, total=of)

        folder = store.join(out, "systems")
        if synthetic:
            systems = drawing.draw(folder, protocol, space, pictures, per_class, shown("systems drawn"))
        else:
            parts_of = {protocols.SUPERVISED: supervised, protocols.UNSEEN: unseen}
            wanted = {part: path for part, path in parts_of.items() if path is not None}
            # Before any picture is embedded, which may take hours.
            for run, part in [(run, part) for run in runs for part in wanted]:
                protocol.refuse_leaks(part, trained_on(run), run)
            if split_run is not None:
                protocol.refuse_leaks(protocols.SPLIT, trained_on(split_run), split_run)
            systems = []
            for number, run in enumerate(runs):
                # Runs of several word vectors share their visual model: softmax stands in the tables once.
                names = ("devise", "random") if number else ("softmax", "devise", "random")
                say = shown(f"pictures, {run}")
                systems += embed(run, wanted, space, is_a_path, folder, int(crops), names, say)
            if split_run is not None and split_test is not None:
                own, say = {protocols.SPLIT: split_test}, shown(f"pictures, {split_run}")
                systems += embed(split_run, own, space, is_a_path, folder, int(crops), ("devise",), say)
        rows = protocols.results(systems, protocol, shown("evaluations"))
    store.write_json(store.join(out, "results.json"), plain(rows))
    text = markdown(rows)
    if synthetic:
        text = (
            "Synthetic: pictures drawn near their labels' vectors; these figures say nothing of any model.\n\n" + text
        )
    store.write_text(store.join(out, "tables.md"), text)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _list(name: str, given: str | None) -> str:
    data = os.environ.get("PSDEVISE_DATA")
    if given is None and data is None:
        option = {"every": "all", "is_a": "is-a"}.get(name, name)
        raise click.UsageError(f"give --{option}, or set PSDEVISE_DATA to a folder that holds imagenet/{LISTS[name]}")
    return given or f"{data}/imagenet/{LISTS[name]}"
