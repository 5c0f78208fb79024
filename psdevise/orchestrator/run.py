"""A run from its configuration to results and report; the same call goes on with one that was stopped."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from io import FileIO
from types import FrameType
from typing import Any

import torch
import yaml

from psdevise import config, events, store
from psdevise.errors import ConfigError, Interrupted
from psdevise.events import Event, Listener, Notice, RunFinished, RunStarted
from psdevise.orchestrator.artifacts import Artifact, Artifacts
from psdevise.orchestrator.graph import Context, run
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.plan import plan
from psdevise.orchestrator.readers import readers
from psdevise.runtime.hosts import make_host

FORMAT = 1
PARTS = "tagger.json"
PACKAGES = ("torch", "ray", "numpy", "gensim", "numba", "pyarrow", "prometheus-client", "faiss-cpu", "scikit-learn")


@dataclass(frozen=True)
class Done:
    """`results`: the rows of results.json; `report` is written by the layer above."""

    folder: str
    results: list[dict[str, Any]]
    seconds: float


def execute(
    options: RunOptions,
    on_event: Listener | None = None,
    redo_from: str | None = None,
    finish: Callable[[str], str] | None = None,
) -> Done:
    """Runs all phases that are not there yet.

    Args:
        on_event: also gets every event.
        redo_from: a phase that runs anew, with all that need it.
        finish: called with the run folder once results stand; returns the report's path.

    Raises:
        PsdeviseError: of any kind; what is finished stays, and the same call goes on.
    """
    folder = store.join(options.folder, options.name)
    _check_format(folder)
    store.make_folder(folder)
    begin = time.time()
    with _journal(folder, options, on_event) as emit, _interruptible() as interrupt:
        host = make_host(options.cluster)
        try:
            phases = plan(options)
            _describe(folder, options, begin)
            emit(RunStarted(options.name, tuple(p.name for p in phases)))
            context = Context(options.name, folder, host, emit, interrupt, Artifacts(folder))
            parallel = ("language", "visual") if options.parallel_phases else ()
            made = run(phases, context, redo_from, parallel)
            found = _publish(folder, made, options.joint.label_vectors == "trained")
            report = finish(folder) if finish is not None and "evaluate" in made else ""
            emit(RunFinished(options.name, time.time() - begin, store.join(folder, "results.json"), report))
        finally:
            host.close()
    return Done(folder, found, time.time() - begin)


def _publish(folder: str, made: dict[str, Artifact], trained_labels: bool) -> list[dict[str, Any]]:
    """The last evaluation's figures become the run's own, and the tagger knows where its parts are. A run without
    pictures has word vectors and no results; where the joint phase trained them too, they are what it left."""
    parts = {"images": "images", "index": "index", "joint": "joint-devise", "random": "joint-random"}
    words = "joint-devise" if trained_labels else "language"
    parts |= {"visual": "visual", "vocabulary": "vocabulary", "language": words}
    inside = {n: made[p].folder.removeprefix(folder + "/") for n, p in parts.items() if p in made}
    store.write_json(store.join(folder, PARTS), inside)
    if "evaluate" not in made:
        return []
    evaluation = made["evaluate"]
    found: list[dict[str, Any]] = store.read_json(evaluation.path("results.json"))
    store.write_json(store.join(folder, "evaluate.json"), {"folder": evaluation.folder})
    store.write_json(store.join(folder, "results.json"), found)
    return found


def part_of(folder: str, part: str) -> str | None:
    """The folder of one part (language, vocabulary, …) of the finished run in `folder`; None if it has none."""
    path = store.join(folder, PARTS)
    inside = store.read_json(path).get(part) if store.exists(path) else None
    return None if inside is None else store.join(folder, inside)


def _check_format(folder: str) -> None:
    path = store.join(folder, "run.json")
    if store.exists(path) and (found := store.read_json(path).get("format", 0)) > FORMAT:
        raise ConfigError(
            f"this run is of format {found}, this psdevise reads up to {FORMAT}",
            where=path,
            mend="install the newer psdevise, or choose another name for the run",
        )


def _describe(folder: str, options: RunOptions, begin: float) -> None:
    resolved = config.plain(options)
    about = {
        "format": FORMAT,
        "name": options.name,
        "started": begin,
        "seed": options.seed,
        "config": resolved,
        "versions": {name: _version(name) for name in (*PACKAGES, "psdevise")} | {"python": platform.python_version()},
        "devices": {
            "cpus": os.cpu_count(),
            "cpu_model": platform.processor() or platform.machine(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }
    store.write_json(store.join(folder, "run.json"), about)
    store.write_text(store.join(folder, "config.yaml"), yaml.safe_dump(resolved, sort_keys=False))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@contextmanager
def _journal(folder: str, options: RunOptions, on_event: Listener | None) -> Iterator[Listener]:
    """Every event goes to events.jsonl, to the run's readers and to the caller; language and visual may
    emit at the same time."""
    path = store.join(folder, "events.jsonl")
    fs, inside = store.filesystem(path)
    lock = threading.Lock()
    # Object stores cannot append: there the journal is held and written as a whole, now and then.
    lines = [] if store.is_local(path) or not fs.exists(inside) else store.read_text(path).splitlines()
    with store.explained(path):
        file = _appended(inside) if store.is_local(path) else None
    written = time.monotonic()

    def emit(event: Event) -> None:
        nonlocal written
        with lock:
            line = json.dumps({"time": time.time(), **events.to_plain(event)})
            if file is not None:
                with store.explained(path):
                    if file.write(whole := line.encode() + b"\n") != len(whole):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                lines.append(line)
                if time.monotonic() - written > 30 or isinstance(event, RunFinished):
                    written = time.monotonic()
                    store.write_text(path, "\n".join(lines) + "\n")
            for listener in listeners:
                listener(event)
            if on_event is not None:
                on_event(event)

    try:
        with readers(options, folder) as (listeners, served):
            if served:
                emit(Notice("", served))
            yield emit
    finally:
        if file is not None:
            file.close()


def _appended(path: str) -> FileIO:
    """Without a buffer, which on a full disk could not be closed either; what follows begins a line of its own, also
    where a driver died while it wrote its last one."""
    file = open(path, "ab+", buffering=0)  # noqa: SIM115
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """The first Ctrl-C asks all phases to stop at the next slice; the second stops at once."""
    interrupt = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if interrupt.is_set():
            raise Interrupted("stopped at once", mend="give the same command again: the last snapshot is kept")
        interrupt.set()

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
