from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise import config, store
from psdevise.config import option
from psdevise.errors import ConfigError, StoreError
from psdevise.orchestrator.options import RunOptions


@dataclass(frozen=True)
class Inner:
    rate: float = option(0.1, "a rate", low=0.0, high=1.0)
    kind: Literal["apply", "refuse"] = option("apply", "a kind")


@dataclass(frozen=True)
class Outer:
    name: str = option(help="a name")
    inner: Inner = option(Inner(), "options inside")
    steps: int | None = option(None, "steps")
    sizes: tuple[int, ...] = option((1, 2), "sizes")
    bound: Literal["unbounded"] | int = option("unbounded", "a bound")


def build(**tree: object) -> Outer:
    return config.build(Outer, {"name": "x"} | tree)


def test_values_defaults_and_the_way_back() -> None:
    made = build(inner={"rate": "1e-3"}, sizes=[3], bound=2)
    assert made == Outer("x", Inner(0.001), None, (3,), 2)
    assert config.build(Outer, config.plain(made)) == made


@pytest.mark.parametrize(
    ("tree", "where", "mend"),
    [
        ({"inner": {"rat": 1}}, "inner.rat", "did you mean 'rate'"),
        ({"stepz": 1}, "stepz", "did you mean 'steps'"),
        ({"inner": {"rate": "fast"}}, "inner.rate", ""),
        ({"inner": {"rate": 2}}, "inner.rate", "to 1.0"),
        ({"inner": {"kind": "aply"}}, "inner.kind", "did you mean 'apply'"),
        ({"inner": 3}, "inner", ""),
        ({"steps": 1.5}, "steps", ""),
        ({"steps": True}, "steps", ""),
        ({"sizes": [1, "a"]}, "sizes[1]", ""),
        ({"bound": "none"}, "bound", ""),
        ({"name": 3}, "name", ""),
    ],
)
def test_what_is_wrong_is_named_by_its_dotted_path(tree: dict[str, object], where: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**tree)
    assert caught.value.where == where
    assert mend in str(caught.value)


def test_a_required_option_says_what_it_is() -> None:
    with pytest.raises(ConfigError, match="a name"):
        config.build(Outer, {})


def test_files_overrides_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: ${PLACE}/x\ninner:\n  rate: 0.5\n")
    monkeypatch.setenv("PLACE", "here")
    made = config.load(Outer, str(path), ("inner.rate=0.25", "steps=null", "sizes=[7, 8]"))
    assert made == Outer("here/x", Inner(0.25), None, (7, 8))
    monkeypatch.delenv("PLACE")
    with pytest.raises(ConfigError, match="PLACE is not set"):
        config.load(Outer, str(path))
    for bad in ("inner.rate", "name.deeper=1", "=3"):
        with pytest.raises(ConfigError, match="--set"):
            config.load(Outer, str(path), (bad,))
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        config.load(Outer, str(path))
    with pytest.raises(StoreError, match="no such file"):
        config.load(Outer, str(tmp_path / "missing.yaml"))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
)
def test_no_tree_gets_anything_but_a_config_error(tree: object) -> None:
    with suppress(ConfigError):
        config.build(RunOptions, {"data": tree} if not isinstance(tree, dict) else tree)


def error_of(action: Callable[[], object]) -> ConfigError | None:
    try:
        action()
    except ConfigError as e:
        return e
    return None


SNIPPETS = [
    "[",
    "{",
    "a: ",
    "- ",
    "&a ",
    "*a",
    "!!python/object:os.system ",
    "2001-99-99",
    ".inf",
    ".nan",
    "'",
    '"',
    "|",
    ">",
]
SNIPPETS += [
    "? ",
    "<<: ",
    "1e999",
    "0x",
    "~",
    "\t",
    "  ",
    "---",
    "...",
    "%YAML 9",
    "${NOT_SET_ANYWHERE}",
    "9" * 400,
    "\x00",
    "é",
]
NAMES = sorted({part for path, _, _ in config.describe(RunOptions) for part in path.split(".")})


@settings(max_examples=400, derandomize=True, deadline=None)
@given(
    st.lists(
        st.sampled_from(SNIPPETS) | st.sampled_from(NAMES) | st.sampled_from([":", ": ", "\n", "\n  "]), max_size=12
    )
)
def test_any_yaml_is_a_configuration_or_names_what_is_wrong(parts: list[str]) -> None:
    store.write_text("memory://fuzz.yaml", "".join(parts))
    for overrides in ((), ("data={world: {}}",), (f"seed={''.join(parts)}",)):
        error = error_of(lambda: config.load(RunOptions, "memory://fuzz.yaml", overrides))  # noqa: B023
        assert error is None or error.where


def test_values_of_any_kind_are_refused_by_their_dotted_path() -> None:
    wrong = [
        None,
        True,
        -1,
        10**400,
        float("nan"),
        float("-inf"),
        "",
        "text",
        [],
        [[]],
        {},
        {"x": 1},
        b"x",
        "2001-99-99",
    ]
    for path, _, _ in config.describe(RunOptions):
        for value in wrong:
            tree: dict[str, Any] = {"data": {"world": {}}}
            *parents, last = path.split(".")
            inner = tree
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
            error = error_of(lambda: config.build(RunOptions, tree))  # noqa: B023
            assert error is None or re.split(r"[.\[]", error.where)[0] in (path.split(".")[0], "data", "language")


def test_every_option_has_a_sentence() -> None:
    for path, _, text in config.describe(RunOptions):
        assert len(text) > 8, path


def test_writes_are_whole_or_not_at_all(tmp_path: Path) -> None:
    path = str(tmp_path / "folder" / "f")
    assert store.write_bytes(path, b"one") == store.sha256(path) == store.sha256_of(b"one")

    def fails(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write_atomic(path, fails)
    assert store.read_bytes(path) == b"one"
    assert os.listdir(tmp_path / "folder") == ["f"]


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    path = tmp_path / "f"
    path.write_bytes(b"before")

    def fill(file: object) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x" * 4096)

    with pytest.raises(StoreError, match="no space left"):
        store.write_atomic(str(path), fill)
    assert path.read_bytes() == b"before"


def test_memory_and_other_protocols(tmp_path: Path) -> None:
    store.write_json("memory://runs/a.json", {"x": 1})
    assert store.read_json("memory://runs/a.json") == {"x": 1}
    assert store.listing("memory://runs") == ["a.json"]
    store.remove("memory://runs/a.json")
    assert not store.exists("memory://runs/a.json")
    with pytest.raises(StoreError, match="nonsense"):
        store.read_bytes("nonsense://x")
    store.write_text(str(tmp_path / "j"), "{")
    with pytest.raises(StoreError, match="not JSON"):
        store.read_json(str(tmp_path / "j"))
