"""The files of `psdevise compare labels`: `tables.md`, `results.json`, learning curves. Returns the Markdown."""

from __future__ import annotations

from typing import Any

from psdevise import store
from psdevise.compare import last_layer, map100
from psdevise.compare.figures import write_lines
from psdevise.compare.labels import CONDITIONS, READINGS, UNSEEN, Options
from psdevise.compare.tables import title
from psdevise.compare.tables_labels import BASELINE, markdown, of_condition, weights
from psdevise.evaluation.result import Result, plain
from psdevise.scores import bootstrap

PAPER = (4096, 17_000)  # k and labels


def write(found: dict[str, Any], options: Options) -> str:
    path = store.join(options.out, "last_layer.json")
    if not store.exists(path):
        sizes = [(k, PAPER[1]) for k in (*options.ks, PAPER[0])]
        store.write_json(path, [last_layer.measure(k, labels) for k, labels in [*sizes, (None, PAPER[1])]])
    costs = [last_layer.Cost(*row) for row in store.read_json(path)]
    text = markdown(found, costs, options.k)
    store.write_text(store.join(options.out, "tables.md"), text)
    store.write_json(store.join(options.out, "results.json"), plain(results(found, options)))
    for condition in CONDITIONS:
        if condition != UNSEEN:
            systems = of_condition(found["cells"], condition)
            curves = {title(s): [(float(x), float(y)) for x, y in a["curve"]] for s, a in systems.items()}
            file = store.join(options.out, f"curves_{condition.replace(' ', '_')}.svg")
            level = f"{title(BASELINE)} at the end", float(systems[BASELINE]["curve"][-1, 1])
            write_lines(file, f"MAP@100 by class, {condition}", curves, "updates", "MAP@100", level)
    return text


def results(found: dict[str, Any], options: Options) -> list[Result]:
    """Rows as `results.json` has them; a condition is a split, intervals are over labels."""
    made, rows = found["made"], []
    for (condition, key), arrays in found["cells"].items():
        system, _, variant = key.partition("-")
        where = (system, variant, "cifar100 labels", condition, options.seed)
        if condition == UNSEEN:
            for candidates, m in (("unseen", len(made.unseen)), ("seen+unseen", len(made.further))):
                for k in (1, 5):
                    own = arrays[f"{candidates}/hit@{k}"]
                    value = bootstrap(own, options.seed)
                    rows.append(Result(*where, "unseen", candidates, "hit", k, *value, k / m, 1.0, len(own)))  # type: ignore[arg-type]
            continue
        relevant = made.relevant(CONDITIONS[condition][1])
        for suffix, weight in (("", None), ("_weighted", weights(relevant))):
            for reading, metric in zip(READINGS, ("map", "map_by_image"), strict=True):
                own = arrays[reading] if weight is None else arrays[reading] * weight
                bounds = map100.map_chance(relevant, reading, weight), map100.map_ceiling(relevant, reading, weight)
                value = bootstrap(own, options.seed)
                rows.append(Result(*where, "seen", "seen", metric + suffix, 100, *value, *bounds, len(relevant)))
    return rows
