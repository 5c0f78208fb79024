"""A comparison's files: `tables.md`, `results.json`, `intervals.json`, figures. Returns the Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psdevise import store
from psdevise.compare import tables
from psdevise.compare.cifar100 import Options
from psdevise.compare.figures import write_lines
from psdevise.errors import DataError
from psdevise.report.tables import markdown as run_tables


def cifar100(found: dict[str, Any], options: Options, runs: Sequence[str]) -> str:
    text = tables.markdown(found, options.kinds, "CIFAR-100: every system on identical frozen features")
    text += _seconds(found)
    rows = list(found["rows"])
    for run in runs:
        path = store.join(run, "results.json")
        if not store.exists(path):
            raise DataError("no results here", where=run, mend="psdevise run goes on with it")
        own = store.read_json(path)
        rows += own
        text += f"\n# Each system's own recipe, with the trained core: {run.rstrip('/').rsplit('/', 1)[-1]}\n\n"
        text += run_tables(own) + "\n"
    store.write_text(store.join(options.out, "tables.md"), text)
    store.write_json(store.join(options.out, "results.json"), rows)
    store.write_json(store.join(options.out, "intervals.json"), _intervals(found, options))
    for kind in options.kinds:
        comparison = tables.Comparison(found, kind)
        plain = [key for key in comparison.shown if key.endswith("-default")]
        curves = {tables.title(key): comparison.curve(key) for key in plain}
        name = f"Seen-unseen curves over calibration biases, {comparison.splits[0]}"
        path = store.join(options.out, f"curves_{kind}.svg")
        write_lines(path, name, curves, "hit@1 on seen pictures", "hit@1 on unseen pictures")
        swept = {}
        for metric, label in (("seen/seen/hit@1", "seen hit@1"), ("unseen/unseen/hit@1", "unseen hit@1")):
            values = [(margin, comparison.value(key, metric)) for margin, key in tables.margins(comparison)]
            swept[label] = [(margin, value.value) for margin, value in values if value is not None]
        path = store.join(options.out, f"margins_{kind}.svg")
        write_lines(path, "DeViSE by margin", swept, "margin", "hit@1")
    return text


def _intervals(found: dict[str, Any], options: Options) -> list[dict[str, Any]]:
    """Every figure of the tables, and every difference to DeViSE, with its interval over splits and pictures."""
    rows = []
    for kind in options.kinds:
        comparison = tables.Comparison(found, kind)
        for key in comparison.shown:
            for metric, _ in tables.SHOWN:
                value = comparison.value(key, metric)
                against = comparison.difference(key, tables.REFERENCE, metric)
                rows.append(
                    {
                        "splits": kind,
                        "n_splits": len(comparison.splits),
                        "system": key,
                        "metric": metric,
                        "figure": None if value is None else value._asdict(),
                        "minus_devise": None if against is None else against._asdict(),
                    }
                )
    return rows


def _seconds(found: dict[str, Any]) -> str:
    """CPU seconds of training and scoring, mean over splits, with the features not counted."""
    lines = ["CPU seconds of a system on a split (training, with and without tuning classes, and scoring).", ""]
    lines += ["| system | seconds |", "|---|---:|"]
    for entry in found["entries"]:
        own = [seconds for (_, key), seconds in found["seconds"].items() if key == entry.key]
        lines.append(f"| {tables.title(entry.key)} | {sum(own) / len(own):.0f} |")
    return "\n".join(lines) + "\n"
