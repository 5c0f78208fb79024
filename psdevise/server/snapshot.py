"""Snapshots: every shard a safetensors file, the run a manifest, committed by writing the manifest last.

    SNAPSHOTS/000012/shard-000.safetensors …     arrays; scalars, version and answered pushes as metadata
    SNAPSHOTS/000012/manifest.json               ledger, layout, checksums (also its own); comes last

A snapshot loads at any shard count: arrays are put together by its own layout and cut by the new one. The
table of answered pushes is carried over only at the same count; incarnations, which are never used twice,
keep old pushes out at another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from psdevise import store
from psdevise.errors import SnapshotError, StoreError
from psdevise.server.layout import Layout
from psdevise.server.protocol import Array, Version
from psdevise.server.shard import ShardState

FORMAT = 2


def shard_path(folder: str, number: int, shard: int) -> str:
    return store.join(folder, f"{number:06d}", f"shard-{shard:03d}.safetensors")


def manifest_path(folder: str, number: int) -> str:
    return store.join(folder, f"{number:06d}", "manifest.json")


def write_shard(path: str, state: ShardState) -> str:
    """Writes one shard's state; returns the file's SHA-256 for the manifest."""
    about = {
        "scalars": state.scalars,
        "version": list(state.version),
        "answered": [[w, i, f, list(above)] for w, (i, f, above) in sorted(state.answered.items())],
        "examples": state.examples,
    }
    return store.write_atomic(path, lambda file: _write_safetensors(file, state.tensors, json.dumps(about)))


def _write_safetensors(file: IO[bytes], tensors: Mapping[str, Array], about: str) -> None:
    """The safetensors format (8 bytes of length, a JSON header, the arrays), straight from the arrays: the library's
    own writer would hold all of them a second time."""
    header: dict[str, Any] = {"__metadata__": {"psdevise": about}}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in tensors.values():
        if array.size:
            file.write(np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint8).data)


def commit(folder: str, number: int, manifest: Mapping[str, Any], keep: int = 2) -> None:
    """Makes snapshot `number` the last good one by writing its manifest; removes all but `keep`."""
    store.write_sealed(manifest_path(folder, number), {"format": FORMAT, **manifest})
    for old in numbers(folder)[:-keep]:
        store.remove(store.join(folder, f"{old:06d}"))


def numbers(folder: str) -> list[int]:
    """Committed snapshots, oldest first."""
    found = [int(name) for name in store.listing(folder) if name.isdigit()]
    return [n for n in found if store.exists(manifest_path(folder, n))]


def last_good(folder: str) -> tuple[dict[str, Any], list[str]] | None:
    """The manifest of the last snapshot whose files are whole, and what was wrong with later ones;
    None if there is no snapshot at all.

    Raises:
        SnapshotError: there are snapshots, but none of them is whole.
    """
    problems: list[str] = []
    for number in reversed(numbers(folder)):
        try:
            manifest = _read_manifest(folder, number)
            for i, checksum in enumerate(manifest["checksums"]):
                check_shard(shard_path(folder, number, i), checksum)
            return manifest, problems
        except SnapshotError as e:
            problems.append(str(e))
    if problems:
        mend = "remove the folder to start this phase anew"
        raise SnapshotError("no snapshot is whole: " + "; ".join(problems), where=folder, mend=mend)
    return None


def before(folder: str, number: int) -> dict[str, Any]:
    """The manifest before that of snapshot `number`.

    Raises:
        SnapshotError: there is none that can be read.
    """
    problems = [f"{number:06d} is broken"]
    for earlier in reversed([n for n in numbers(folder) if n < number]):
        try:
            return _read_manifest(folder, earlier)
        except SnapshotError as e:
            problems.append(str(e))
    raise SnapshotError("no snapshot is whole: " + "; ".join(problems), where=folder)


def load_for(folder: str, manifest: Mapping[str, Any], layout: Layout, shard: int) -> ShardState:
    """The state of one shard of `layout` from a snapshot, whatever its shard count."""
    old = Layout.from_plain(manifest["layout"])
    if replace(old, shards=1) != replace(layout, shards=1):
        raise SnapshotError("the snapshot holds other parameters than this run's model", where=folder)
    if old.shards == layout.shards:
        return read_shard(shard_path(folder, manifest["number"], shard), manifest["checksums"][shard])
    return recut(old, load_all(folder, manifest), layout)[shard]


def load_all(folder: str, manifest: Mapping[str, Any]) -> list[ShardState]:
    """The states of all shards as they were saved."""
    checksums = enumerate(manifest["checksums"])
    return [read_shard(shard_path(folder, manifest["number"], i), c) for i, c in checksums]


def _read_manifest(folder: str, number: int) -> dict[str, Any]:
    where = manifest_path(folder, number)
    try:
        manifest = store.read_sealed(where)
    except StoreError as e:
        raise SnapshotError(e.what, where=where) from e
    if manifest.get("format") != FORMAT:
        raise SnapshotError(f"format {manifest.get('format')}, this psdevise reads {FORMAT}", where=where)
    return manifest | {"number": number}


def check_shard(path: str, checksum: str) -> None:
    """
    Raises:
        SnapshotError: the file is missing, cut off, or not what the manifest says.
    """
    try:
        found = store.sha256(path)
    except StoreError as e:
        raise SnapshotError(e.what, where=path) from e
    if found != checksum:
        raise SnapshotError("the file's checksum is not the manifest's: cut off or changed", where=path)


def read_shard(path: str, checksum: str) -> ShardState:
    """
    Raises:
        SnapshotError: the file is missing, cut off, or not what the manifest says.
    """
    try:
        data = store.read_bytes(path)
        if store.sha256_of(data) != checksum:
            raise SnapshotError("the file's checksum is not the manifest's: cut off or changed", where=path)
        tensors = load_safetensors(data)
        about = json.loads(_metadata(data))
    except (SafetensorError, ValueError, KeyError) as e:
        raise SnapshotError(f"not a shard's file: {e}", where=path) from e
    except SnapshotError:
        raise
    except StoreError as e:
        raise SnapshotError(e.what, where=path) from e
    answered = {w: (i, f, tuple(above)) for w, i, f, above in about["answered"]}
    return ShardState(tensors, about["scalars"], Version(*about["version"]), answered, about["examples"])


def _metadata(data: bytes) -> str:
    length = int.from_bytes(data[:8], "little")
    return str(json.loads(data[8 : 8 + length])["__metadata__"]["psdevise"])


def initial(layout: Layout, named: Mapping[str, Array]) -> list[ShardState]:
    """The states of a layout's shards before the first step, from name → array."""
    whole = {"dense": layout.flatten(named), "buffers": layout.flatten_buffers(named)}
    whole |= {f"table.{t.name}": np.asarray(named[t.name], np.float32) for t in layout.tables}
    return [ShardState(_cut(layout, i, whole), {}, Version(0, 0), {}) for i in range(layout.shards)]


def gather(layout: Layout, states: list[ShardState]) -> dict[str, Array]:
    """name → array of all parameters and buffers, from the shards of `layout`; a table's accumulators, where its
    rule keeps some, are `sums.NAME`."""
    whole = _join(layout, states)
    named = layout.views(whole["dense"]) | layout.buffer_views(whole["buffers"])
    sums = {key: array for key, array in whole.items() if key.startswith("sums.")}
    return named | {t.name: whole[f"table.{t.name}"] for t in layout.tables} | sums


def recut(old: Layout, states: list[ShardState], new: Layout) -> list[ShardState]:
    """States for another shard count; parameters and groups must be the same.

    Raises:
        SnapshotError: the snapshot holds other parameters.
    """
    if replace(old, shards=1) != replace(new, shards=1):
        raise SnapshotError("the snapshot holds other parameters than this run's model")
    if old.shards == new.shards:
        return states
    whole = _join(old, states)
    scalars = {k: max(s.scalars[k] for s in states) for k in states[0].scalars}
    counter, examples = max(s.version.counter for s in states), max(s.examples for s in states)
    return [ShardState(_cut(new, i, whole), scalars, Version(0, counter), {}, examples) for i in range(new.shards)]


def _join(layout: Layout, states: list[ShardState]) -> dict[str, Array]:
    whole: dict[str, Array] = {}
    for key, first in states[0].tensors.items():
        if key == "buffers":
            whole[key] = first
        elif key.startswith(("table.", "sums.")):
            rows = sum(len(s.tensors[key]) for s in states)
            whole[key] = np.empty((rows, first.shape[1]), np.float32)
            for i, s in enumerate(states):
                whole[key][i :: layout.shards] = s.tensors[key]
        else:
            whole[key] = np.concatenate([s.tensors[key] for s in states])
    return whole


def _cut(layout: Layout, shard: int, whole: Mapping[str, Array]) -> dict[str, Array]:
    start, stop = layout.range(shard)
    parts: dict[str, Array] = {}
    for key, array in whole.items():
        if key == "buffers":
            parts[key] = array if shard == 0 else np.zeros(0, np.float32)
        elif key.startswith(("table.", "sums.")):
            parts[key] = np.ascontiguousarray(array[shard :: layout.shards])
        else:
            parts[key] = array[start:stop].copy()
    return parts
