"""One self-contained HTML page per run: what ran, curves, results, maps, examples, and the bill."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import jinja2

from psdevise import store
from psdevise.report import figures
from psdevise.report.tables import HEADINGS, cell, columns, heading, markdown


def write(run_folder: str) -> str:
    """Writes results.md and report.html; the report's path. A piece that is missing leaves its section out,
    with a sentence that says so."""
    results = store.read_json(store.join(run_folder, "results.json"))
    store.write_text(store.join(run_folder, "results.md"), markdown(results) + "\n")
    about = store.read_json(store.join(run_folder, "run.json"))
    events = _events(run_folder)
    evaluation = store.read_json(store.join(run_folder, "evaluate.json"))["folder"]
    doctor = _optional(store.join(evaluation, "doctor.json"))
    curve = _optional(store.join(evaluation, "curve.json"))
    page = _template().render(
        about=about,
        config=json.dumps(about["config"], indent=1),
        phases=_phases(events),
        training=figures.training(events),
        tables=[_table(key, title, results) for key, title in HEADINGS.items() if _rows(key, results)],
        comparisons=_optional(store.join(evaluation, "comparisons.json")) or [],
        curve=figures.seen_unseen(curve) if curve else None,
        samples=_optional(store.join(evaluation, "samples.json")) or [],
        maps=figures.maps(evaluation),
        doctor=doctor,
        notices=[e["text"] for e in events if e["event"] == "Notice"],
        restarts=[e for e in events if e["event"] == "Restarted"],
    )
    path = store.join(run_folder, "report.html")
    store.write_text(path, page)
    return path


def _template() -> jinja2.Template:
    text = importlib.resources.files("psdevise.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text)


def _events(run_folder: str) -> list[dict[str, Any]]:
    """The journal; a line that was cut off by a kill is left out."""
    path = store.join(run_folder, "events.jsonl")
    found = []
    for line in store.read_text(path).splitlines() if store.exists(path) else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _phases(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every phase once, as it last really ran; its bill in hours, gigabytes and gigabytes of memory."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "PhaseFinished" and (not event["reused"] or event["phase"] not in found):
            bill = event["bill"]
            peaks = {k.removeprefix("peak_bytes_"): v / 1e9 for k, v in bill.items() if k.startswith("peak_bytes")}
            found[event["phase"]] = {
                "name": event["phase"],
                "seconds": event["seconds"],
                "reused": event["reused"],
                "core_hours": bill.get("core_seconds", 0.0) / 3600,
                "gpu_hours": bill.get("gpu_seconds", 0.0) / 3600,
                "gigabytes": bill.get("bytes", 0.0) / 1e9,
                "peaks": peaks,
            }
    return list(found.values())


def _rows(key: tuple[str, str], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in results if (r["images"], r["candidates"]) == key]


def _table(key: tuple[str, str], title: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    rows = _rows(key, results)
    shown = columns(rows)
    by = {(r["system"], r["metric"], r["k"]): r for r in rows}
    systems = list(dict.fromkeys(r["system"] for r in rows))
    best = {c: max((by[s, *c]["value"] or 0.0 for s in systems if (s, *c) in by), default=0.0) for c in shown}
    lines = []
    for system in systems:
        cells = []
        for c in shown:
            row = by.get((system, *c))
            has = row is not None and row["low"] is not None
            cells.append(
                {
                    "text": cell(row),
                    "range": f"{cell(row, 'low')} to {cell(row, 'high')}" if has else "",
                    "best": row is not None and row["value"] is not None and row["value"] == best[c],
                }
            )
        lines.append({"system": system, "cells": cells})
    first = {c: next(r for r in rows if (r["metric"], r["k"]) == c) for c in shown}
    extras = {name: [cell(first[c], name) for c in shown] for name in ("chance", "ceiling")}
    return {
        "title": title,
        "n": rows[0]["n"],
        "columns": [heading(*c) for c in shown],
        "lines": lines,
        "extras": extras,
    }


def _optional(path: str) -> Any:
    return store.read_json(path) if store.exists(path) else None
