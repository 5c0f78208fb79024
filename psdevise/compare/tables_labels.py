"""Chollet 2016's tables as Markdown, from the cells of `psdevise compare labels`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from psdevise.compare import map100
from psdevise.compare.cells import Arrays
from psdevise.compare.label_vectors import LabelVectors
from psdevise.compare.labels import CONDITIONS, READINGS, UNSEEN
from psdevise.compare.last_layer import Cost
from psdevise.compare.multilabel import Made
from psdevise.compare.tables import title, verdict
from psdevise.labels import cooccurrence
from psdevise.scores import Interval, bootstrap, paired

BASELINE = "logistic-default"
LOWEST, HIGHEST = 0.1, 10.0
ARITHMETIC = (
    (("lion", "canine"), ("feline",)),
    (("whale", "fish (superclass)"), ("aquatic mammals (superclass)",)),
    (("apple", "flowers (superclass)"), ("fruit and vegetables (superclass)",)),
    (("couch", "household electrical devices (superclass)"), ("household furniture (superclass)",)),
    (("girl", "animal"), ("person",)),
)
NEIGHBOURS = ("maple tree", "wolf", "bus", "keyboard", "sea", "woman")
Cells = Mapping[tuple[str, str], Arrays]


def weights(relevant: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """A class's frequency over the mean class's, capped at a tenth and ten (the paper does not give its caps)."""
    frequency = relevant.mean(axis=0)
    return np.clip(frequency / max(float(frequency.mean()), 1e-12), LOWEST, HIGHEST)


def about(arrays: Arrays) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(str(arrays["about"]))
    return found


def of_condition(cells: Cells, condition: str) -> dict[str, Arrays]:
    return {system: arrays for (where, system), arrays in cells.items() if where == condition}


def reached(curve: npt.NDArray[np.float64], level: float) -> int | None:
    """The first kept step at which the curve is at `level` or above; None if it never is."""
    there = curve[curve[:, 1] >= level]
    return int(there[0, 0]) if len(there) else None


def markdown(found: dict[str, Any], costs: Sequence[Cost], k: int) -> str:
    cells, made = found["cells"], found["made"]
    lines = ["# Label embeddings (Chollet 2016)", "", *_statistics(made, k)]
    for condition in CONDITIONS:
        if condition != UNSEEN:
            lines += _map(condition, of_condition(cells, condition), made)
    lines += _claims(cells) + _unseen(of_condition(cells, UNSEEN))
    lines += _vectors(LabelVectors(made.names, found["embedding"]["labels"]), made, k) + _last_layer(costs)
    return "\n".join(lines) + "\n"


def _statistics(made: Made, k: int) -> list[str]:
    """Table 1, and how far PMI is from positive definite."""
    lines = [
        "## Labels (the paper's Table 1)",
        "",
        f"{len(made.names)} labels: CIFAR-100's classes, their coarse classes and their ancestors in WordNet. *dropped*"
        f": share of Σ|λ| of PPMI's negative eigenvalues, taken for 0; *beyond k*: of the positive ones past k = {k}.",
        "",
        "| set | pictures | labels of a picture | pictures of a label: least, median, most | pairs never together |"
        " negative eigenvalues | dropped | beyond k |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for which in made.rows:
        relevant = made.relevant(which)
        counts = cooccurrence.count(relevant[relevant.any(axis=1)])
        each = counts.each
        never = float((counts.together[np.triu_indices(len(each), 1)] == 0).mean())
        factors = cooccurrence.factorise(cooccurrence.pmi(counts), min(k, len(each)))
        lines.append(
            f"| {which} | {counts.pictures:,} | {each.sum() / counts.pictures:.1f} | {each.min():,.0f},"
            f" {np.median(each):,.0f}, {each.max():,.0f} | {100 * never:.0f} % | {factors.negative} |"
            f" {100 * factors.dropped:.1f} % | {100 * factors.cut:.1f} % |"
        )
    return [*lines, ""]


def _map(condition: str, systems: Mapping[str, Arrays], made: Made) -> list[str]:
    relevant = made.relevant(CONDITIONS[condition][1])
    weight = weights(relevant)
    end = float(systems[BASELINE]["curve"][-1, 1])
    lines = [
        f"## {condition}: MAP@100 on clean test pictures",
        "",
        "In hundredths. *by class*: precision of the class's k highest pictures; *by image*: among pictures that list"
        " the class among their k best labels (both readings of the paper's words); *weighted*: times the class's"
        " frequency over the mean one, from .1 to 10. Intervals over labels. *steps*: updates until the baseline's"
        " final value by class.",
        "",
        "| system | by class | difference to logistic | weighted | by image | weighted | steps | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for system, arrays in systems.items():
        difference = paired(arrays["by_class"], systems[BASELINE]["by_class"])
        step = reached(arrays["curve"], end)
        figures = [_percent(bootstrap(arrays["by_class"])), "" if system == BASELINE else _signed(difference)]
        figures.append(f"{100 * float((arrays['by_class'] * weight).mean()):.1f}")
        figures += [f"{100 * float((arrays['by_image'] * w).mean()):.1f}" for w in (1, weight)]
        figures += ["never" if step is None else f"{step:,}", f"{about(arrays)['seconds']:.0f}"]
        lines.append(f"| {title(system)} | " + " | ".join(figures) + " |")
    for name, of in (("chance", map100.map_chance), ("ceiling", map100.map_ceiling)):
        plain, by_weight = ([100 * of(relevant, reading, w) for reading in READINGS] for w in (None, weight))
        cells = f"{plain[0]:.1f} | | {by_weight[0]:.1f} | {plain[1]:.1f} | {by_weight[1]:.1f}"
        lines.append(f"| *{name}* | {cells} | | |")
    return [*lines, ""]


def _claims(cells: Cells) -> list[str]:
    lines = [
        "## What the paper claims",
        "",
        "Differences of MAP@100 by class in hundredths, paired over labels. The paper (17,000 labels, k = 4,096,"
        " weighted MAP@100): 6.95 at the end against 6.50, which was reached in about a tenth of the baseline's steps.",
        "",
        "| claim | condition | difference [95 % interval] | |",
        "|---|---|---:|---|",
    ]
    pairs = (
        ("embedding above logistic at the end", "chollet-default", BASELINE, tuple(CONDITIONS)[:5]),
        ("it is the co-occurrence that helps: PMI above one-hot", "chollet-default", "chollet-one-hot",
         tuple(CONDITIONS)[:5]),
        ("an embedding from other annotations is no worse", "chollet-other annotations", "chollet-default",
         tuple(CONDITIONS)[:5]),
    )  # fmt: skip
    for text, key, other, conditions in pairs:
        for condition in conditions:
            found = paired(cells[condition, key]["by_class"], cells[condition, other]["by_class"])
            no_worse = text.endswith("no worse") and found.high >= 0
            outcome = "held" if no_worse else verdict(found)
            lines.append(f"| {text} | {condition} | {_signed(found)} | {outcome} |")
    for condition in tuple(CONDITIONS)[:5]:
        base, own = cells[condition, BASELINE]["curve"], cells[condition, "chollet-default"]["curve"]
        step, total = reached(own, float(base[-1, 1])), int(base[-1, 0])
        text = "never" if step is None else f"at step {step:,}, {100 * step / total:.0f} %"
        held = "held" if step is not None and step <= 0.2 * total else "not held"
        lines.append(f"| the baseline's final value in a tenth of its steps | {condition} | {text} | {held} |")
    return [*lines, ""]


def _unseen(systems: Mapping[str, Arrays]) -> list[str]:
    lines = [
        "## New classes placed by their co-occurrences",
        "",
        "Trained without the 20 classes of `unseen_20.txt`; each placed by its coarse class and ancestors, as far as"
        " seen pictures have them. Per cent, chance 5 and 25 among the 20. A logistic regression names none of them.",
        "",
        "| system | among 20: hit@1 | hit@5 | among 100: hit@1 | hit@5 |",
        "|---|---:|---:|---:|---:|",
    ]
    for system, arrays in systems.items():
        figures = [_percent(bootstrap(arrays[f"{c}/hit@{k}"])) for c in ("unseen", "seen+unseen") for k in (1, 5)]
        lines.append(f"| {title(system)} | " + " | ".join(figures) + " |")
    return [*lines, ""]


def _vectors(vectors: LabelVectors, made: Made, k: int) -> list[str]:
    stands = {name: f"{name} (superclass)" for name in made.coarse}
    same, moved = vectors.siblings(made.coarse), vectors.moved(made.coarse, stands)
    lines = [
        f"## Nearest labels and arithmetic (Table 2), k = {k}",
        "",
        f"The nearest of the other 99 classes has the same coarse class for {_percent(same)} % of them. Class − its"
        f" coarse class + another one: nearest is a class of the other one in {_percent(moved)} % of 1,900 (chance"
        " about 5).",
        "",
        "| | nearest labels (cosine) |",
        "|---|---|",
    ]
    sums = [((name,), ()) for name in NEIGHBOURS]
    for plus, minus in (*sums, *ARITHMETIC):
        if not {*plus, *minus} <= set(vectors.names):
            continue
        text = " + ".join(plus) + "".join(f" − {name}" for name in minus)
        nearest = ", ".join(f"{name} {cosine:.2f}" for name, cosine in vectors.nearest(plus, minus))
        lines.append(f"| {text} | {nearest} |")
    return [*lines, ""]


def _last_layer(costs: Sequence[Cost]) -> list[str]:
    lines = [
        "## The last layer",
        "",
        "2,048 features, 128 pictures of 10 labels, Adagrad, one thread; the layer with gradient and accumulator.",
        "",
        "| outputs | labels | MiB | ms a step |",
        "|---:|---:|---:|---:|",
    ]
    for cost in costs:
        lines.append(f"| {cost.outputs:,} | {cost.labels:,} | {cost.bytes / 2**20:.1f} | {1000 * cost.seconds:.1f} |")
    return [*lines, ""]


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _signed(found: Interval) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]".replace("-", "−")
