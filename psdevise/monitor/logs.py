"""Standard logging, as JSON lines: a file per process in the run folder's `logs/`.

    {"time": 1764000000.1, "level": "info", "process": "visual-worker-0-3", "host": "n2", "pid": 812, "text": "joined"}

`error` holds the traceback where there is one. Everything that is logged under `psdevise` arrives here; what other
libraries log goes where it always did.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psdevise import store
from psdevise.errors import StoreError
from psdevise.events import Event, Notice, PhaseFinished, PhaseStarted, Restarted, RunFinished, SnapshotWritten

logger = logging.getLogger("psdevise")


class JsonLines(logging.Formatter):
    """One JSON object a line.

    Args:
        process: name of this process within the run.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._about = {"process": process, "host": socket.gethostname(), "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": record.created, "level": record.levelname.lower(), **self._about}
        line |= {"logger": record.name, "text": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk: what ends the run for it says so, and not each line that is lost."""


def begin(folder: str, process: str) -> logging.Handler | None:
    """Logs this process to `folder`/`process`.jsonl, appending; None where that cannot be written (an object store, a
    disk that this node lacks): a run does not fail for its log."""
    if not folder or not store.is_local(folder):
        return None
    try:
        store.make_folder(folder)
        handler = _File(store.join(folder, f"{process}.jsonl"), encoding="utf-8")
    except (OSError, StoreError):
        return None
    handler.setFormatter(JsonLines(process))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


def end(handler: logging.Handler | None) -> None:
    """Takes what `begin` gave away again."""
    if handler is not None:
        logger.removeHandler(handler)
        with suppress(OSError):  # a full disk
            handler.close()


@contextmanager
def telling_errors() -> Iterator[None]:
    """Logs an exception with its traceback on its way out; also a decorator."""
    try:
        yield
    except Exception as e:
        logger.exception("ended by %s", type(e).__name__)
        raise


def log_event(event: Event) -> None:
    """A listener: what happens rarely, as log lines. Progress has a journal of its own, events.jsonl."""
    match event:
        case PhaseStarted(phase=phase):
            logger.info("%s began", phase)
        case PhaseFinished(phase=phase, seconds=seconds, reused=reused):
            logger.info("%s %s", phase, "is reused" if reused else f"ended after {seconds:.1f} s")
        case SnapshotWritten(phase, number, seconds):
            logger.info("%s: snapshot %d in %.2f s", phase, number, seconds)
        case Restarted(phase, role, rank, incarnation, reason, examples):
            what = f", {examples} examples {event.fate}" if examples else ""
            logger.warning("%s: %s %d is incarnation %d now%s: %s", phase, role, rank, incarnation, what, reason)
        case Notice(phase, text):
            logger.warning("%s: %s", phase, text) if phase else logger.info("%s", text)
        case RunFinished(seconds=seconds):
            logger.info("the run ended after %.1f s", seconds)
        case _:
            pass
