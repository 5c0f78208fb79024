"""Table (i) of `psdevise compare cifar100` as Markdown: systems, paired differences, margins, the papers' claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from psdevise.compare.cells import Arrays
from psdevise.compare.intervals import over_splits
from psdevise.report.text import points
from psdevise.scores import Interval

REFERENCE = "devise-default"
SHOWN = (
    ("seen/seen/hit@1", "seen hit@1"),
    ("seen/seen/hit@5", "hit@5"),
    ("seen/seen/hp@5", "hp@5"),
    ("seen/seen/hp@10", "hp@10"),
    ("seen/seen/hp@20", "hp@20"),
    ("unseen/unseen/hit@1", "unseen hit@1"),
    ("unseen/unseen/hit@5", "hit@5"),
    ("unseen/seen+unseen/hit@5", "among all: hit@5"),
    ("unseen/seen+unseen/hp@5", "hp@5"),
)
VALIDATION = ("validation/seen/hit@1", "validation/tuning/hit@1")
PER_SPLIT = (
    ("harmonic_calibrated", 1, "harmonic, calibrated"),
    ("ausuc", 1, "area S–U"),
    ("hubness", 1, "skewness of N₁ (20 / 100)"),
    ("unknown_auroc", None, "unknown: AUROC"),
    ("named_hit", 100, "named 100 %"),
    ("named_hit", 80, "80 %"),
    ("named_hit", 50, "50 %"),
)


class Comparison:
    """The cells of some splits: per-picture figures by system and metric.

    Args:
        found: what `cifar100.run` returned. Draws of random embeddings are one system: the mean over them.
    """

    def __init__(self, found: dict[str, Any], kind: str) -> None:
        self.splits: list[str] = [s.name for s in found["splits"] if s.name.rsplit("_", 1)[0] == kind]
        self.keys = [entry.key for entry in found["entries"]]
        self._arrays: dict[tuple[str, str], Arrays] = found["arrays"]
        self.calibrated: bool = found.get("calibrated", True)
        self._rows = [row for row in found["rows"] if row["split"] in set(self.splits)]
        self.draws = [key for key in self.keys if key == "random-default" or key.startswith("random-draw ")]
        self.shown = [key for key in self.keys if key not in self.draws[1:]]

    def per_picture(self, key: str, metric: str) -> list[np.ndarray[Any, Any]] | None:
        """A value per picture for each split; None where the system has none."""
        members = self.draws if key in self.draws else [key]
        found = []
        for split in self.splits:
            own = [self._arrays[split, member].get(metric) for member in members]
            if any(values is None for values in own):
                return None
            found.append(np.mean([np.asarray(values, np.float64) for values in own], axis=0))
        return found

    def value(self, key: str, metric: str) -> Interval | None:
        values = self.per_picture(key, metric)
        return None if values is None else over_splits(values)

    def difference(self, key: str, other: str, metric: str) -> Interval | None:
        """key − other, paired by picture and split."""
        a, b = self.per_picture(key, metric), self.per_picture(other, metric)
        if a is None or b is None:
            return None
        return over_splits([x - y for x, y in zip(a, b, strict=True)])

    def per_split(self, key: str, metric: str, k: int | None, candidates: str | None = None) -> list[float]:
        """One figure per split (mean over draws)."""
        members = self.draws if key in self.draws else [key]
        found = []
        for split in self.splits:
            rows = [
                row["value"]
                for row in self._rows
                if row["split"] == split
                and f"{row['system']}-{row['variant']}" in members
                and (row["metric"], row["k"]) == (metric, k)
                and candidates in (None, row["candidates"])
            ]
            if not rows or any(value is None for value in rows):
                return []
            found.append(float(np.mean(rows)))
        return found

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(seen, unseen) accuracy over calibration biases, of the first split."""
        points_of = self._arrays[self.splits[0], key]["curve"]
        return [(float(s), float(u)) for s, u in points_of]


def markdown(found: dict[str, Any], kinds: Sequence[str], heading: str) -> str:
    parts = [f"# {heading}", ""]
    for kind in kinds:
        comparison = Comparison(found, kind)
        parts += [f"## {kind}: {len(comparison.splits)} split{'s' * (len(comparison.splits) > 1)}", ""]
        parts += _systems(comparison) + _generalised(comparison) + _differences(comparison) + _margins(comparison)
        parts += claims(comparison)
    return "\n".join(parts) + "\n"


def _systems(comparison: Comparison) -> list[str]:
    lines = [
        "All systems on identical features, unless fine-tuned; means over the splits with 95 % bootstrap intervals over"
        f" splits and pictures. Random embeddings: mean of {len(comparison.draws)} draws. hit@k in per cent, hp@k as"
        " shares; – where a system cannot name what is in the pictures.",
        "",
        "| system | " + " | ".join(title for _, title in SHOWN) + " |",
        "|---|" + "---:|" * len(SHOWN),
    ]
    for key in comparison.shown:
        if key.startswith("devise-margin"):
            continue
        figures = [shown(comparison.value(key, metric), metric) for metric, _ in SHOWN]
        lines.append(f"| {title(key)} | " + " | ".join(figures) + " |")
    return [*lines, ""]


def _generalised(comparison: Comparison) -> list[str]:
    lines = [
        "Seen and unseen pictures among all classes. "
        + (
            "The calibration bias was chosen on validation pictures with the system trained without ten tuning classes."
            if comparison.calibrated
            else "No calibration bias was chosen, so that no figure here is calibrated."
        )
        + " *unknown: AUROC*: how well a low best score among seen classes"
        " tells unseen pictures; *named k %*: hit@1 of the k % of highest best score, the others answered “unknown”."
        " Mean over splits, ± standard deviation.",
        "",
        "| system | " + " | ".join(title for _, _, title in PER_SPLIT) + " |",
        "|---|" + "---:|" * len(PER_SPLIT),
    ]
    for key in comparison.shown:
        figures = []
        for metric, k, _ in PER_SPLIT:
            if metric == "hubness":
                both = [comparison.per_split(key, metric, k, c) for c in ("unseen", "seen+unseen")]
                figures.append(" / ".join(_mean(values, 1.0) for values in both) if all(both) else "–")
            else:
                scale = 1.0 if metric in ("ausuc", "unknown_auroc") else 100.0
                figures.append(_mean(comparison.per_split(key, metric, k), scale))
        if any(figure != "–" for figure in figures) and not key.startswith("devise-margin"):
            lines.append(f"| {title(key)} | " + " | ".join(figures) + " |")
    return [*lines, ""]


def _differences(comparison: Comparison) -> list[str]:
    lines = [
        f"Differences to {title(REFERENCE)}, paired by picture and split, in points; **bold** where the 95 % interval"
        " excludes 0.",
        "",
        "| system | " + " | ".join(title for _, title in SHOWN) + " |",
        "|---|" + "---:|" * len(SHOWN),
    ]
    for key in comparison.shown:
        if key == REFERENCE or key.startswith("devise-margin"):
            continue
        figures = []
        for metric, _ in SHOWN:
            found = comparison.difference(key, REFERENCE, metric)
            if found is None:
                figures.append("–")
                continue
            text = f"{points(found.value)} [{points(found.low)}, {points(found.high)}]"
            figures.append(f"**{text}**" if found.low > 0 or found.high < 0 else text)
        lines.append(f"| {title(key)} | " + " | ".join(figures) + " |")
    return [*lines, ""]


def margins(comparison: Comparison) -> list[tuple[float, str]]:
    """(margin, system key), ascending; DeViSE's own is .1."""
    found = [(float(key.split()[-1]), key) for key in comparison.shown if key.startswith("devise-margin")]
    return sorted([*found, (0.1, REFERENCE)])


def _margins(comparison: Comparison) -> list[str]:
    if len(margins(comparison)) == 1:
        return []
    chosen = [comparison.value(key, metric) for metric in VALIDATION for _, key in margins(comparison)]
    wanted = (*VALIDATION, "seen/seen/hit@1", "seen/seen/hp@10", "unseen/unseen/hit@1", "unseen/unseen/hit@5")
    lines = [
        "Margins of the hinge (Frome et al. 2013, footnote 3). Validation pictures choose, with systems trained without"
        " the tuning classes: hit@1 of the other seen classes, and of the tuning classes among themselves.",
        "",
        "| margin | validation: seen hit@1 | tuning classes | test: seen hit@1 | hp@10 | unseen hit@1 | hit@5 |",
        "|---:|" + "---:|" * len(wanted),
    ]
    for value, key in margins(comparison):
        lines.append(f"| {value:g} | " + " | ".join(shown(comparison.value(key, m), m) for m in wanted) + " |")
    values = [found.value for found in chosen if found is not None]
    if len(values) == len(chosen):
        seen, tuning = np.array(values).reshape(2, -1)
        best = [margins(comparison)[int(own.argmax())][0] for own in (seen, tuning, seen + tuning)]
        lines += [
            "",
            f"Best on validation: {best[0]:g} by seen, {best[1]:g} by tuning classes, {best[2]:g} by their sum.",
        ]
    return [*lines, ""]


def claims(comparison: Comparison) -> list[str]:
    """What the papers claim, and what came out: held where the paired interval lies on the claim's side of 0, not held
    where on the other, open where 0 is inside."""
    lines = ["| claim | the paper, ImageNet | difference in points [95 % interval] | |", "|---|---:|---:|---|"]
    for text, key, other, metric, paper in CLAIMS:
        if key not in comparison.keys or other not in comparison.keys:
            continue
        found = comparison.difference(key, other, metric)
        if found is None:
            continue
        figures = f"{points(found.value)} [{points(found.low)}, {points(found.high)}]"
        lines.append(f"| {text} | {paper} | {figures} | {verdict(found)} |")
    if "l2-sgd" in comparison.keys:
        a, b = (comparison.value(key, "seen/seen/hit@1") for key in ("l2-sgd", REFERENCE))
        if a is not None and b is not None and b.value > 0:
            lines.append(f"| L2's accuracy over the rank loss's | about half | ratio {a.value / b.value:.2f} | |")
    return ["What the papers claim, and what came out on these features.", "", *lines, ""]


def verdict(found: Interval) -> str:
    return "held" if found.low > 0 else "not held" if found.high < 0 else "open: the interval holds 0"


# claim, the system that should be above, the other, metric, what the paper printed (on ImageNet; Table 1: 500-D)
CLAIMS = (
    ("DeViSE above softmax at seen hp@5 (Frome 2013, Table 1)", REFERENCE, "softmax-default", "seen/seen/hp@5",
     ".352 to .342"),
    ("… at seen hp@10", REFERENCE, "softmax-default", "seen/seen/hp@10", ".331 to .313"),
    ("… at seen hp@20", REFERENCE, "softmax-default", "seen/seen/hp@20", ".341 to .319"),
    ("softmax above DeViSE at seen hit@1 (Table 1)", "softmax-default", REFERENCE, "seen/seen/hit@1", "55.6 to 53.2"),
    ("DeViSE above random at seen hp@20 (Table 1)", REFERENCE, "random-default", "seen/seen/hp@20", ".341 to .248"),
    ("DeViSE above random on unseen, hit@1", REFERENCE, "random-default", "unseen/unseen/hit@1", "“much”"),
    ("DeViSE above random on unseen, hit@5", REFERENCE, "random-default", "unseen/unseen/hit@5", "“much”"),
    ("DeViSE above softmax on unseen pictures among all, hp@5 (Table 3, 2-hop)", REFERENCE, "softmax-default",
     "unseen/seen+unseen/hp@5", ".196 to .181"),
    ("fine-tuning the core adds (section 3.3), seen hit@1", "devise-fine-tuned", REFERENCE, "seen/seen/hit@1",
     "1 to 3 points"),
    ("… on unseen, hit@1", "devise-fine-tuned", REFERENCE, "unseen/unseen/hit@1", "1 to 3 points"),
    ("rank loss above L2 at seen hit@1 (section 3.3)", REFERENCE, "l2-sgd", "seen/seen/hit@1", "L2: half"),
    ("rank loss above L2 on unseen, hit@1", REFERENCE, "l2-sgd", "unseen/unseen/hit@1", "L2: half"),
    ("rank loss above L2's closed form on unseen, hit@1", REFERENCE, "l2-default", "unseen/unseen/hit@1", "L2: half"),
    ("ConSE above DeViSE on unseen, hit@1 (Norouzi 2014)", "conse-default", REFERENCE, "unseen/unseen/hit@1", ""),
    ("ConSE above DeViSE on unseen, hit@5", "conse-default", REFERENCE, "unseen/unseen/hit@5", ""),
)  # fmt: skip


def title(key: str) -> str:
    system, _, variant = key.partition("-")
    return system if variant == "default" else f"{system}, {variant}"


def shown(found: Interval | None, metric: str) -> str:
    """hit@k in per cent, hp@k as a share, with the interval."""
    if found is None:
        return "–"
    if "/hit@" in metric:
        return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return " ".join((f"{found.value:.3f}", f"[{found.low:.3f}, {found.high:.3f}]")).replace("0.", ".")


def _mean(values: Sequence[float], scale: float) -> str:
    if not values:
        return "–"
    digits = 1 if scale == 100.0 else 2 if max(map(abs, values)) > 1 else 3
    spread = f" ± {scale * float(np.std(values, ddof=1)):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * float(np.mean(values)):.{digits}f}{spread}"
