"""YAML → frozen dataclasses. Knows no option of its own: each room declares its options beside its code.

An option is a dataclass field made by `option(default, "what it means, with its unit")`. `build` turns a
nested mapping into such a dataclass and refuses, with the dotted path, what it does not know.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

import yaml

from psdevise import store
from psdevise.errors import ConfigError

T = TypeVar("T")
_MISSING: Any = dataclasses.MISSING


def option(default: Any = _MISSING, help: str = "", *, low: float | None = None, high: float | None = None) -> Any:
    """A configuration field: its default (none = required), a sentence on it, and its allowed range."""
    metadata = {"help": help, "low": low, "high": high}
    if isinstance(default, (list, dict)) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load(cls: type[T], path: str, overrides: tuple[str, ...] = ()) -> T:
    """Reads the YAML file at `path`, applies `a.b=c` overrides, and builds `cls`.

    Raises:
        ConfigError: not YAML, an unknown key (with the nearest valid one), a wrong type or value.
        StoreError: the file cannot be read.
    """
    tree = _parsed(store.read_text(path), path)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"expected a mapping of options, got {type(tree).__name__}", where=path)
    return build(cls, override(tree, overrides))


def override(tree: Mapping[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """A copy of a nested mapping with `a.b=value` applied; values are read as YAML.

    Raises:
        ConfigError: an override without `=`, or a key below a value.
    """
    changed = copy.deepcopy(dict(tree))
    for one in overrides:
        _apply(changed, one)
    return changed


def build(cls: type[T], tree: Mapping[str, Any], path: str = "") -> T:
    """Builds the dataclass `cls` from a mapping; nested dataclasses from nested mappings."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for name, value in tree.items():
        where = f"{path}.{name}" if path else str(name)
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(fields))}"
            raise ConfigError(f"unknown option {name!r}", where=where, mend=mend)
        values[name] = _convert(value, hints[name], where)
        _check_range(values[name], fields[name], where)
    for name, field in fields.items():
        if name not in values and field.default is _MISSING and field.default_factory is _MISSING:
            where = f"{path}.{name}" if path else name
            raise ConfigError("this option is required", where=where, mend=field.metadata.get("help", ""))
    try:
        return cls(**values)
    except ConfigError as e:  # a dataclass may check its fields against each other in __post_init__
        raise ConfigError(e.what, where=f"{path}.{e.where}".strip(".") if e.where else path, mend=e.mend) from e


def plain(value: Any) -> Any:
    """The inverse of `build`: dataclasses → dicts, tuples → lists, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return value


def describe(cls: type[Any], path: str = "") -> list[tuple[str, str, str]]:
    """(dotted path, default, sentence) of every option under `cls`, in order."""
    rows = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        where = f"{path}.{field.name}" if path else field.name
        inner = [t for t in _alternatives(hints[field.name]) if dataclasses.is_dataclass(t)]
        if inner:
            rows += describe(typing.cast(type[Any], inner[0]), where)
            continue
        default = field.default
        if not isinstance(field.default_factory, dataclasses._MISSING_TYPE):
            default = field.default_factory()
        rows.append(
            (
                where,
                "required" if default is _MISSING else repr(plain(default)),
                field.metadata.get("help", ""),
            )
        )
    return rows


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected a.b=value, got {override!r}", where="--set")
    *parents, last = key.split(".")
    for parent in parents:
        inner = tree.setdefault(parent, {})
        if inner is None:
            inner = tree[parent] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{parent!r} is a value and holds no options", where=f"--set {key}")
        tree = inner
    tree[last] = _parsed(text, f"--set {key}")


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as e:  # a date such as 2001-99-99 is a ValueError
        raise ConfigError(f"not YAML: {e}", where=where) from e


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _convert(value: Any, hint: Any, where: str) -> Any:
    alternatives = _alternatives(hint)
    errors = []
    for one in alternatives:
        try:
            return _convert_one(value, one, where)
        except ConfigError as e:
            errors.append(e)
    # In a union with a dataclass, a mapping's inner error says more than "expected X or null".
    deeper = [e for e in errors if e.where != where]
    if deeper:
        raise deeper[0]
    if len(errors) == 1:
        raise errors[0]
    names = " or ".join(_name(a) for a in alternatives)
    raise ConfigError(f"expected {names}, got {value!r}", where=where)


def _convert_one(value: Any, hint: Any, where: str) -> Any:
    wrong = ConfigError(f"expected {_name(hint)}, got {value!r}", where=where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        near = difflib.get_close_matches(str(value), [str(a) for a in args], n=1)
        wrong.mend = f"did you mean {near[0]!r}?" if near else ""
        raise wrong
    if hint is type(None):
        if value is None:
            return None
        raise wrong
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return build(typing.cast(type[Any], hint), value, where)
        raise wrong
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise wrong
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise ConfigError(f"expected {len(args)} values, got {len(value)}", where=where)
        return tuple(_convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong
        return {str(k): _convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise wrong
        try:  # YAML 1.1 reads 1e-3 as a string
            return float(value)
        except (ValueError, OverflowError):
            raise wrong from None
    if hint is str and isinstance(value, str):
        return _expanded(value, where)
    if hint in (int, bool) and type(value) is hint:
        return value
    raise wrong


def _expanded(text: str, where: str) -> str:
    """`${NAME}` becomes the environment variable's value, so that one file serves wherever the data lies."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            mend = f"give it with the command: {match[1]}=… psdevise …"
            raise ConfigError(f"the environment variable {match[1]} is not set", where=where, mend=mend)
        return found

    return re.sub(r"\$\{(\w+)\}", value, text)


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if hint is type(None):
        return "null"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if hint in names:
        return names[hint]
    if dataclasses.is_dataclass(hint):
        return "a mapping of options"
    return "a list" if typing.get_origin(hint) is tuple else "a mapping"


def _check_range(value: Any, field: dataclasses.Field[Any], where: str) -> None:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if (low is not None and value < low) or (high is not None and value > high) or value != value:
        limits = f"from {low} " if low is not None else ""
        limits += f"to {high}" if high is not None else "up"
        raise ConfigError(f"{value} is out of range", where=where, mend=f"allowed: {limits}")
