"""The house's rules, held by walking the imports (docs/design.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import psdevise

ROOT = Path(psdevise.__file__).parent
ROWS = [
    {"errors", "config", "store", "compression", "compiled", "events"},
    {"models", "labels", "data", "index", "scores"},
    {"server", "worker"},
    {"phases", "systems", "tagger", "evaluation", "monitor"},
    {"runtime", "simulation"},
    {"orchestrator"},
    {"cli", "report", "bench", "compare"},
]
# Inside a row, imports go only along these arrows (and what follows from them).
ARROWS = {
    "evaluation": {"tagger", "systems", "phases"},
    "tagger": {"systems", "phases"},
    "systems": {"phases"},
    "worker": {"server"},
    "cli": {"report", "bench", "compare"},
    "compare": {"report"},
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
    found = [i for i, rooms in enumerate(ROWS) if name in rooms]
    assert found, f"{name} stands in no row: give it one here and in docs/design.md"
    return found[0]


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
    if imported in psdevise.__all__:  # psdevise.run and psdevise.load use all rows, so only the highest may use them
        return row(importer) == len(ROWS) - 1
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
        if parts[0] == "psdevise" and len(parts) > 1:
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
            assert name not in ("print", "sys.exit", "exit", "quit", "os._exit", "SystemExit"), f"{path}: {name}()"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_server_worker_and_phases_hold_no_threads_clocks_or_sockets(path: Path) -> None:
    if row(room(path)) not in (2, 3) if room(path) != "__init__" else True:
        return
    if room(path) == "monitor":
        return  # its endpoint is the exception
    forbidden = {"threading", "time", "socket", "asyncio", "random", "queue"}
    for name in imports(path):
        assert name.split(".")[0] not in forbidden, f"{path} imports {name}"


def test_the_map_has_a_line_in_its_row_for_every_room() -> None:
    found: dict[str, int] = {}
    number = -1
    # "    1  models        skip-gram, …": the number stands before the first room of a row only.
    for line in (psdevise.__doc__ or "").splitlines():
        if match := re.fullmatch(r" {4}(\d| )  (\w+) {2,}\S.*", line):
            number = int(match[1]) if match[1] != " " else number
            found[match[2]] = number
    rooms = {room(path) for path in FILES} - {"__init__"}
    assert found == {name: row(name) for name in rooms}, "the map in psdevise/__init__.py and the rooms differ"
    assert list(found.values()) == sorted(found.values()), "the map reads from the low rows to the high ones"


def test_the_rules_refuse_what_they_should() -> None:
    assert allowed("cli", "orchestrator")
    assert allowed("worker", "server")
    assert allowed("evaluation", "phases")
    assert not allowed("server", "worker")
    assert not allowed("server", "models"), "row 2 is a parameter server for any model"
    assert not allowed("models", "data")
    assert not allowed("phases", "runtime")
    assert allowed("cli", "load")
    assert not allowed("tagger", "load"), "upward, through the package's front door"
