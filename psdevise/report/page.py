"""A run folder as one self-contained HTML page.

Each section is made from its own files; where one is missing or broken the section says so and the others
stand. The page asks for nothing from elsewhere, which its own Content-Security-Policy enforces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from psdevise import store
from psdevise.errors import DataError, PsdeviseError, StoreError
from psdevise.report import maps, tables
from psdevise.report.chart import Series, lines
from psdevise.report.history import bill, curves, describe_phases, lag_charts
from psdevise.report.journal import Journal, read
from psdevise.report.text import core_hours, duration, gigabytes, points, short

NAMES = {
    "devise": "DeViSE",
    "softmax": "Softmax",
    "random": "Random embeddings",
    "l2": "L2",
    "conse": "ConSE",
    "wsabie": "WSABIE",
}


@dataclass(frozen=True)
class Part:
    """What a section shows, or why it is left out."""

    value: Any = None
    why: str = ""


def write(run_folder: str) -> str:
    """Writes report.html, and results.md where there are results; returns the report's path.

    Raises:
        StoreError: there is no such run folder, or it cannot be written.
    """
    if not store.exists(run_folder):
        raise StoreError("no such run folder", where=run_folder, mend="check the path")
    results = part(lambda: _results(run_folder))
    if results.value:
        store.write_text(store.join(run_folder, "results.md"), tables.markdown(results.value) + "\n")
    path = store.join(run_folder, "report.html")
    store.write_text(path, render(run_folder, results))
    return path


def render(run_folder: str, results: Part) -> str:
    """The page as text."""
    about = part(lambda: dict(store.read_json(store.join(run_folder, "run.json"))))
    journal = part(lambda: read(store.join(run_folder, "events.jsonl")))
    place = part(lambda: _evaluation(run_folder))

    def told(make: Callable[[Journal], Any]) -> Part:
        return part(lambda: make(journal.value)) if journal.value else journal

    def judged(make: Callable[[str], Any]) -> Part:
        return part(lambda: make(place.value)) if place.value else place

    def rows(make: Callable[[Sequence[tables.Row]], Any]) -> Part:
        return part(lambda: make(results.value)) if results.value else results

    environment = Environment(
        loader=PackageLoader("psdevise", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "figure": tables.figure,
        "heading": tables.heading,
        "system_name": _name,
        "short": short,
        "duration": duration,
        "core_hours": core_hours,
        "gigabytes": gigabytes,
        "signed": points,
    }
    return environment.get_template("page.html.j2").render(
        title=(about.value or {}).get("name") or run_folder.rstrip("/").rsplit("/", 1)[-1],
        about=about,
        journal=journal,
        started=_date(journal.value.started) if journal.value else "",
        tiles=rows(_tiles),
        pivots=rows(tables.pivots),
        comparisons=judged(lambda folder: _list(folder, "comparisons.json")),
        curve=judged(_trade_off),
        samples=judged(_samples),
        maps=judged(maps.draw),
        doctor=judged(_doctor),
        phases=told(describe_phases),
        curves=told(curves),
        lags=told(lag_charts),
        bill=told(bill),
        config=part(lambda: yaml.safe_dump(about.value["config"], sort_keys=False, allow_unicode=True))
        if about.value
        else about,
    )


def part(make: Callable[[], Any]) -> Part:
    """A report is written when hours of work stand behind it: nothing in it may end the run."""
    try:
        value = make()
    except PsdeviseError as e:
        return Part(why=f"{e.where.rsplit('/', 1)[-1]}: {e.what}" if e.where else e.what)
    except Exception as e:
        return Part(why=f"could not be read ({type(e).__name__}: {e})")
    return Part(value) if value else Part(why="the run has left nothing to show")


def _results(run_folder: str) -> list[tables.Row]:
    rows = _list(run_folder, "results.json")
    tables.markdown(rows)  # every key is there, or this section says which is not
    return rows


def _list(folder: str, name: str) -> list[dict[str, Any]]:
    found = store.read_json(store.join(folder, name))
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError("not an array of objects", where=name)
    return found


def _evaluation(run_folder: str) -> str:
    """The folder of the evaluation's artifact; a run folder that was moved has it still inside."""
    named = str(store.read_json(store.join(run_folder, "evaluate.json"))["folder"]).rstrip("/")
    moved = store.join(run_folder, "artifacts", named.rsplit("/", 1)[-1])
    found = next((p for p in (moved, named, store.join(run_folder, named)) if store.exists(p)), None)
    if found is None:
        raise StoreError("the evaluation's artifact is not there any more", where=named)
    return found


def _tiles(results: Sequence[tables.Row]) -> list[dict[str, str]]:
    """The few figures that a reader looks for first, each beside what it is compared with."""
    wanted = (
        ("Zero-shot hit@1", "unseen", "unseen", "hit", 1, "random"),
        ("Zero-shot hit@5", "unseen", "unseen", "hit", 5, "random"),
        ("Seen hit@1", "seen", "seen", "hit", 1, "softmax"),
        ("Seen hp@5", "seen", "seen", "hp", 5, "softmax"),
    )
    found = []
    for title, images, candidates, metric, k, against in wanted:
        key = (images, candidates, metric, k, "default")
        rows = [r for r in results if tuple(r[c] for c in ("images", "candidates", "metric", "k", "variant")) == key]
        ours = next((r for r in rows if r["system"] == "devise" and r["value"] is not None), None)
        if ours is None:
            continue
        unit = " %" if metric in tables.PER_CENT else ""
        other = next((r for r in rows if r["system"] == against and r["value"] is not None), None)
        notes = [] if other is None else [f"{_name((against, 'default'))} {tables.figure(other)}{unit}"]
        notes.append(f"chance {tables.figure(ours, 'chance')}{unit}")
        found.append({"title": title, "value": f"{tables.figure(ours)}{unit}", "note": " · ".join(notes)})
    return found


def _trade_off(folder: str) -> Any:
    """Chao et al. 2016: accuracy on seen against unseen pictures while a bias moves from one to the other."""
    found = store.read_json(store.join(folder, "curve.json"))
    series = [
        Series(_name((name, "default")), [(100 * s, 100 * u) for s, u in points], style % 4)
        for style, (name, points) in enumerate(found.items())
        if points
    ]
    if not series:
        raise DataError("no system names all classes", where="curve.json")
    describe = "Hit@1 on unseen pictures against hit@1 on seen pictures: " + ", ".join(s.name for s in series)
    drawn = lines(series, describe, "seen, %", "unseen, %", zero=True, size=(640.0, 300.0))
    return {"svg": drawn, "names": [(s.name, s.style) for s in series]}


def _samples(folder: str) -> list[dict[str, Any]]:
    found = []
    for row in _list(folder, "samples.json"):
        image = str(row["image"])
        lists = [
            (_name((system, "default")), [(str(label), float(score)) for label, score in row[system]])
            for system in ("devise", "softmax")
            if row.get(system)
        ]
        found.append(
            {
                "label": str(row["label"]),
                "seen": bool(row["seen"]),
                "image": image if image.startswith("data:image/") else "",
                "lists": lists,
            }
        )
    return found


def _doctor(folder: str) -> dict[str, Any]:
    found = store.read_json(store.join(folder, "doctor.json"))
    summary = sorted(found["summary"].items(), key=lambda item: -item[1])
    rows = [(str(r["label"]), str(r["how"]), str(r["term"]), r["count"]) for r in found["rows"]]
    return {"summary": summary, "rows": rows}


def _name(system: tables.System) -> str:
    name, variant = system
    return tables.system_name((NAMES.get(name, name), variant))


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
