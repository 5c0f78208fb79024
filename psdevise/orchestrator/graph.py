"""Phases in order: each runs once, is known by what made it, and goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from psdevise import store
from psdevise.errors import ConfigError, Interrupted
from psdevise.events import Listener, PhaseFinished, PhaseStarted
from psdevise.orchestrator.artifacts import Artifact, Artifacts
from psdevise.runtime.job import Host, Interrupt
from psdevise.runtime.memory import peak_bytes

Inputs = Mapping[str, Artifact]


@dataclass
class Context:
    """What a phase may use while it runs."""

    run: str
    folder: str
    host: Host
    on_event: Listener
    interrupt: Interrupt
    artifacts: Artifacts
    bills: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def incarnations(self) -> str:
        return store.join(self.folder, "incarnations.json")


@dataclass(frozen=True)
class Phase:
    """
    Args:
        needs: phases whose artifacts it reads.
        made_from: all options that change its result; with the keys of `needs` they are its content key.
        make: (context, inputs, folder, snapshots) → the figures that the artifact keeps.
    """

    name: str
    needs: tuple[str, ...]
    made_from: Callable[[], dict[str, Any]]
    make: Callable[[Context, Inputs, str, str], dict[str, Any]]
    unit: str = "examples"


def keys(phases: list[Phase]) -> dict[str, tuple[str, dict[str, Any]]]:
    """name → (content key, what it was made from), in order."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for phase in phases:
        made_from = {"options": phase.made_from(), "inputs": {n: found[n][0] for n in phase.needs}}
        found[phase.name] = (store.key_of([phase.name, made_from]), made_from)
    return found


def run(phases: list[Phase], context: Context, redo_from: str | None, parallel: tuple[str, ...]) -> dict[str, Artifact]:
    """Runs what is not there yet; phases of `parallel` whose inputs are ready run at the same time.

    Raises:
        ConfigError: `redo_from` names no phase.
        Interrupted: the user stopped; what is finished and the last snapshots are kept.
    """
    by_key = keys(phases)
    if redo_from is not None:
        _forget(phases, context, by_key, redo_from)
    done: dict[str, Artifact] = {}
    waiting = list(phases)
    while waiting:
        if context.interrupt.is_set():
            raise Interrupted("stopped by the user", mend="give the same command again to go on")
        ready = [p for p in waiting if all(n in done for n in p.needs)]
        together = [p for p in ready if p.name in parallel]
        batch = together if len(together) > 1 else ready[:1]
        if len(batch) == 1:
            finished = [_one(batch[0], context, by_key, done)]
        else:
            with ThreadPoolExecutor(len(batch)) as pool:
                finished = list(pool.map(lambda p: _one(p, context, by_key, done), batch))
        for phase, artifact in zip(batch, finished, strict=True):
            done[phase.name] = artifact
            waiting.remove(phase)
    return done


def _one(
    phase: Phase,
    context: Context,
    by_key: Mapping[str, tuple[str, dict[str, Any]]],
    done: Mapping[str, Artifact],
) -> Artifact:
    key, made_from = by_key[phase.name]
    context.on_event(PhaseStarted(phase.name, phase.unit))
    found = context.artifacts.find(phase.name, key)
    if found is not None:
        context.on_event(PhaseFinished(phase.name, 0.0, reused=True))
        return found
    begin, cpu = time.monotonic(), time.process_time()
    folder, snapshots = (
        context.artifacts.folder(phase.name, key),
        context.artifacts.snapshots(phase.name, key),
    )
    store.make_folder(folder)
    figures = phase.make(context, {n: done[n] for n in phase.needs}, folder, snapshots)
    artifact = context.artifacts.commit(phase.name, key, made_from, figures)
    # What the driver itself computed; the time that workers and shards held cores is already in the bill.
    bill = context.bills.setdefault(phase.name, {})
    bill["core_seconds"] = bill.get("core_seconds", 0.0) + time.process_time() - cpu
    bill["peak_bytes_driver"] = peak_bytes()
    context.on_event(PhaseFinished(phase.name, time.monotonic() - begin, bill=bill))
    return artifact


def _forget(
    phases: list[Phase], context: Context, by_key: Mapping[str, tuple[str, dict[str, Any]]], redo_from: str
) -> None:
    """Removes the artifacts of a phase and of everything that needs it."""
    names = [p.name for p in phases]
    if redo_from not in names:
        raise ConfigError(f"no phase {redo_from!r}", where="--from", mend=f"phases of this run: {', '.join(names)}")
    stale = {redo_from}
    for phase in phases:
        if stale.intersection(phase.needs):
            stale.add(phase.name)
    for name in stale:
        context.artifacts.forget(name, by_key[name][0])
