"""A comparison's files: `tables.md`, `results.json`, `intervals.json`, figures. Returns the Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psdevise import store
from psdevise.compare import tables
from psdevise.compare.cifar100 import Options
from psdevise.compare.figures import write_lines


def cifar100(found: dict[str, Any], options: Options, trained: dict[str, Any] | None = None) -> str:
    """
    Args:
        found: table (i), of `cifar100.run`; trained: table (ii), of `trained.run`.
    """
    text = tables.markdown(found, options.kinds, "CIFAR-100: every system on identical frozen features")
    text += _seconds(found)
    rows = list(found["rows"])
    if trained is not None:
        rows += trained["rows"]
        text += "\n" + _trained(trained)
    store.write_text(store.join(options.out, "tables.md"), text)
    store.write_json(store.join(options.out, "results.json"), rows)
    store.write_json(store.join(options.out, "intervals.json"), _intervals(_parts(found, options, trained)))
    for part, kind in _parts(found, options, trained):
        comparison = tables.Comparison(part, kind)
        plain = [key for key in comparison.shown if key.endswith("-default")]
        curves = {tables.title(key): comparison.curve(key) for key in plain}
        name = f"Seen-unseen curves over calibration biases, {comparison.splits[0]}"
        path = store.join(options.out, f"curves_{kind}.svg")
        write_lines(path, name, curves, "hit@1 on seen pictures", "hit@1 on unseen pictures")
        swept: dict[str, list[tuple[float, float]]] = {}
        if len(tables.margins(comparison)) == 1:
            continue
        for metric, label in (("seen/seen/hit@1", "seen hit@1"), ("unseen/unseen/hit@1", "unseen hit@1")):
            values = [(margin, comparison.value(key, metric)) for margin, key in tables.margins(comparison)]
            swept[label] = [(margin, value.value) for margin, value in values if value is not None]
        path = store.join(options.out, f"margins_{kind}.svg")
        write_lines(path, "DeViSE by margin", swept, "margin", "hit@1")
    return text


def _parts(found: dict[str, Any], options: Options, trained: dict[str, Any] | None) -> list[tuple[dict[str, Any], str]]:
    """(table, kind of its splits)."""
    further = [] if trained is None else [(trained, _kind(trained))]
    return [*((found, kind) for kind in options.kinds), *further]


def _kind(trained: dict[str, Any]) -> str:
    return str(trained["splits"][0].name.rsplit("_", 1)[0])


def _trained(found: dict[str, Any]) -> str:
    """Table (ii)."""
    text = tables.markdown(found, [_kind(found)], "CIFAR-100: each system's own recipe, with the trained core")
    text += "A split is a run here: the same classes, another seed, its own core and word vectors.\n\n"
    if not found["calibrated"]:
        text += (
            "No calibration bias: it would have to come from a run whose core saw neither the unseen nor the tuning"
            " classes (`--tuning-run`). The area under the seen-unseen curve needs none.\n\n"
        )
    return text + _seconds(found)


def _intervals(parts: Sequence[tuple[dict[str, Any], str]]) -> list[dict[str, Any]]:
    """Every figure of the tables, and every difference to DeViSE, with its interval over splits and pictures."""
    rows = []
    for found, kind in parts:
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
