"""The house's rules, held by walking the imports (docs/design.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import psdevise

ROOT = Path(psdevise.__file__).parent
ROWS = [
    {"errors", "config", "store", "events"},
    {"models", "labels", "data", "index", "scores"},
    {"server", "worker"},
    {"phases", "systems", "tagger", "evaluation", "monitor"},
    {"runtime", "simulation"},
    {"orchestrator"},
    {"cli", "report", "bench"},
]
# Inside a row, imports go only along these arrows (and what follows from them).
ARROWS = {
    "evaluation": {"tagger", "systems", "phases"},
    "tagger": {"systems", "phases"},
    "systems": {"phases"},
    "worker": {"server"},
    "cli": {"report", "bench"},
    "labels": {"data", "index"},
    "config": {"errors", "store"},
    "store": {"errors"},
    "events": {"errors"},
}
HOME = {
    "ray": {"runtime"},
    "prometheus_client": {"monitor"},
    "click": {"cli"},
    "rich": {"cli"},
    "gensim": {"models", "labels", "data", "index", "scores"},
    "faiss": {"models", "labels", "data", "index", "scores"},
    "pyarrow": {"models", "labels", "data", "index", "scores"},
}
FILES = sorted(p for p in ROOT.rglob("*.py") if "peers" not in p.parts)


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def row(name: str) -> int:
    return next(i for i, rooms in enumerate(ROWS) if name in rooms)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "psdevise":
                yield from (f"psdevise.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def allowed(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    a, b = row(importer), row(imported)
    if a == b:
        return imported in ARROWS.get(importer, set())
    return b < a and not (a == 2 and b == 1)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward_and_libraries_stay_at_home(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "psdevise" and len(parts) > 1 and parts[1] not in ("load", "run"):
            assert allowed(here, parts[1]), f"{here} imports {name}"
        assert parts[0] not in ("jobs", "tests"), f"the library imports {name}"
        if parts[0] in HOME:
            assert here in HOME[parts[0]], f"{here} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    if room(path) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("print", "sys.exit", "exit", "quit", "os._exit"), f"{path}: {name}()"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_server_worker_and_phases_hold_no_threads_clocks_or_sockets(path: Path) -> None:
    if row(room(path)) not in (2, 3) if room(path) != "__init__" else True:
        return
    if room(path) == "monitor":
        return  # its endpoint is the exception
    forbidden = {"threading", "time", "socket", "asyncio", "random", "queue"}
    for name in imports(path):
        assert name.split(".")[0] not in forbidden, f"{path} imports {name}"


def test_the_map_names_every_room() -> None:
    doc = psdevise.__doc__ or ""
    for name in {room(p) for p in FILES} - {"__init__"}:
        assert f" {name} " in doc, f"the map in psdevise/__init__.py has no line for {name}"
