"""Where a phase's training begins: its last good snapshot, or its first one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psdevise.server import snapshot
from psdevise.server.layout import Layout
from psdevise.server.protocol import Array


@dataclass(frozen=True)
class Start:
    """`coordinator` is None for a phase that has not begun. `problems` names broken snapshots."""

    folder: str
    number: int
    manifest: dict[str, Any]
    coordinator: dict[str, Any] | None
    problems: list[str]


def begin_phase(folder: str, layout: Layout, initial: Callable[[], Mapping[str, Array]]) -> Start:
    """The last good snapshot in `folder`; where there is none, snapshot 0 with the initial values is
    written first, so that every shard, also one that dies in its first second, restores from a file."""
    found = snapshot.last_good(folder)
    if found is None:
        states = snapshot.initial(layout, initial())
        checksums = [snapshot.write_shard(snapshot.shard_path(folder, 0, i), s) for i, s in enumerate(states)]
        manifest: dict[str, Any] = {"layout": layout.plain(), "checksums": checksums, "coordinator": None}
        snapshot.commit(folder, 0, manifest)
        return Start(folder, 0, manifest | {"number": 0}, None, [])
    manifest, problems = found
    return Start(folder, manifest["number"], manifest, manifest["coordinator"], problems)
