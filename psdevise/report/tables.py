"""Results as Markdown: a table per pairing of pictures and candidates, systems as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADINGS = {
    ("seen", "seen"): "Seen pictures among seen classes",
    ("unseen", "unseen"): "Unseen pictures among unseen classes (DeViSE-0)",
    ("unseen", "seen+unseen"): "Unseen pictures among all classes (DeViSE+1K)",
    ("seen", "seen+unseen"): "Seen pictures among all classes",
    ("seen+unseen", "seen+unseen"): "Generalised: harmonic mean of both, area under the curve",
}


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Values in per cent (hp@k as shares, as the papers print them); – where a system cannot answer."""
    parts = []
    for images, candidates in HEADINGS:
        rows = [r for r in results if (r["images"], r["candidates"]) == (images, candidates)]
        if rows:
            parts.append(_table(HEADINGS[images, candidates], rows))
    return "\n\n".join(parts)


def columns(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int | None]]:
    """(metric, k) of the rows, in their order."""
    return list(dict.fromkeys((r["metric"], r["k"]) for r in rows))


def cell(row: dict[str, Any] | None, key: str = "value") -> str:
    if row is None or row[key] is None:
        return "–"
    return f"{row[key]:.3f}" if row["metric"] in ("hp", "ausuc") else f"{100 * row[key]:.1f}"


def heading(metric: str, k: int | None) -> str:
    names = {"class_mean_hit": "class mean", "harmonic_calibrated": "harmonic, calibrated"}
    return names.get(metric, metric) if metric not in ("hit", "hp") else f"{metric}@{k}"


def _table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    shown = columns(rows)
    by = {(r["system"], r["variant"], r["metric"], r["k"]): r for r in rows}
    systems = list(dict.fromkeys((r["system"], r["variant"]) for r in rows))
    lines = [f"### {title} (n = {rows[0]['n']})", ""]
    lines.append("| system | " + " | ".join(heading(m, k) for m, k in shown) + " |")
    lines.append("|---|" + "---:|" * len(shown))
    for system, variant in systems:
        name = system if variant == "default" else f"{system} ({variant})"
        lines.append(f"| {name} | " + " | ".join(cell(by.get((system, variant, m, k))) for m, k in shown) + " |")
    # Of the first system that can name all candidates; another's own chance and ceiling are in results.json.
    for extra in ("chance", "ceiling"):
        first = {(m, k): next(r for r in rows if (r["metric"], r["k"]) == (m, k)) for m, k in shown}
        lines.append(f"| *{extra}* | " + " | ".join(cell(first[c], extra) for c in shown) + " |")
    return "\n".join(lines)
