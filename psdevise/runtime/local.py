"""Shard and worker on one machine: gradients and parameters through shared memory, short messages through a Unix
socket. No Ray call, and one copy each way.

    worker                                   shard (a thread per worker, one call at a time)
      │ ── connect ─────────────────────────► │  checks that the peer is the same user
      │ ◄─────────────── arena, read-only ─── │
      │    pull: copies the arena itself, again if it changed meanwhile (`SharedView.copy`)
      │ ── push (segment, offset, identity) ► │  applies it from the worker's memory
      │ ◄──────────────────────────── Ack ─── │

Table rows go through memory of the worker's too, both ways (`shelf`). The worker's end is `local_link`.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.connection import Connection, Listener
from typing import Any, Final, TypeAlias

from psdevise.errors import BadMessage
from psdevise.monitor.logs import logger
from psdevise.runtime.messages import receive, send
from psdevise.runtime.segment import Segment, SharedMemory
from psdevise.runtime.shelf import arrays
from psdevise.server.shard import Shard

HOLD_SECONDS = 1.0
HOLD_SECONDS_PER_FLOAT = 2e-8  # a copy at 200 MB/s
RETRY_SECONDS = 0.2
_END: Final = object()
Connected: TypeAlias = "Connection[Any, Any]"


class LocalServer:
    """Serves a shard to the workers of its machine.

    Args:
        lock: held while the shard is used, by whomever.
        on_push: called with the seconds that a push took.
    """

    def __init__(
        self, shard: Shard, memory: SharedMemory, lock: threading.Lock, on_push: Callable[[float], None]
    ) -> None:
        self._shard, self._memory, self._lock, self._on_push = shard, memory, lock, on_push
        # An abstract address: no file that could be left behind, and none but this machine's network namespace.
        self.address = f"\0psdevise-{secrets.token_hex(16)}"
        self._listener = Listener(self.address, "AF_UNIX", backlog=128)
        threading.Thread(target=self._accept, daemon=True, name="local-accept").start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # there are too many open files: that passes, and the shard must still be found then
                time.sleep(RETRY_SECONDS)
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True, name="local-serve").start()

    def _serve(self, connection: Connected) -> None:
        replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            if _peer_user(connection) != os.getuid():
                return
            start, stop = self._shard.layout.range(self._shard.index)
            dims = {table.name: table.dim for table in self._shard.layout.tables}
            send(connection, (self._memory.segment.nbytes, stop - start, dims))
            fd = self._memory.segment.read_only()
            try:
                reduction.send_handle(connection, fd, 0)  # type: ignore[arg-type]
            finally:
                os.close(fd)
            # Replies leave by a thread of their own: were both ends to write large messages at once, each would
            # wait for the other to read.
            threading.Thread(target=_answer, args=(connection, replies), daemon=True, name="local-answer").start()
            segments: dict[int, Segment] = {}
            shelf: dict[int, Segment] = {}
            while True:
                message = receive(connection)
                try:
                    self._obey(message, connection, replies, segments, shelf)
                except (TypeError, ValueError, KeyError, AttributeError) as e:
                    raise BadMessage(f"{type(e).__name__}: {e}") from e
        except (EOFError, OSError):
            pass  # the worker is gone, or has done
        except BadMessage as e:
            logger.error("shard %d ended the connection to a worker of this machine: %s", self._shard.index, e)
        finally:
            replies.put(_END)

    def _obey(
        self,
        message: Any,
        connection: Connected,
        replies: queue.SimpleQueue[Any],
        segments: dict[int, Segment],
        shelf: dict[int, Segment],
    ) -> None:
        kind, *arguments = message
        if kind in ("segment", "shelf"):
            number, nbytes = arguments
            known, writable = (shelf, True) if kind == "shelf" else (segments, False)
            known[number] = Segment(reduction.recv_handle(connection), nbytes, writable)  # type: ignore[arg-type]
        elif kind == "pull":
            place, *asked = arguments
            into = None
            if place is not None:
                number, shapes = place
                into = dict(zip(shapes, arrays(shelf[number], list(shapes.values())), strict=True))
            self._pull(connection, replies, asked, into)
        elif kind == "push":
            where, place, gradient, *rest = arguments
            if where is not None:
                number, offset, n = where
                gradient = replace(gradient, dense=segments[number].floats(offset, n))
            if place is not None:
                number, shapes = place
                values = dict(zip(shapes, arrays(shelf[number], list(shapes.values())), strict=True))
                gradient = replace(gradient, rows={name: (gradient.rows[name][0], values[name]) for name in shapes})
            begin = time.perf_counter()
            replies.put(self._call("push", gradient, *rest))
            self._on_push(time.perf_counter() - begin)
        elif kind == "call":
            replies.put(self._call(*arguments))
        elif kind != "go":
            raise BadMessage(f"{kind!r} is nothing that is asked for")

    def _call(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            try:
                return getattr(self._shard, method)(*arguments)
            except Exception as e:  # a PsdeviseError is an answer; anything else the worker raises
                return e

    def _pull(
        self, connection: Connected, replies: queue.SimpleQueue[Any], arguments: list[Any], into: Any = None
    ) -> None:
        """Answers with all but the dense part, and with no rows that were put `into` the worker's memory; and holds
        still while the worker copies the dense part: at most `HOLD_SECONDS`, for a worker may die or sleep, and then
        finds its copy torn."""
        rows, newer_than, accumulators, buffers = arguments
        with self._lock:
            try:
                pulled = self._shard.pull(rows, newer_than, accumulators, buffers, into)
            except Exception as e:
                replies.put(e)
                return
            n = 0 if pulled.dense is None else pulled.dense.size
            dense = None if pulled.dense is None else pulled.dense[:0]  # it has moved: come and copy it
            copied = None if pulled.buffers is None else pulled.buffers.copy()
            own = pulled.rows if into is None else {}
            replies.put(replace(pulled, dense=dense, rows=own, accumulators=None, buffers=copied))
            if n:
                connection.poll(HOLD_SECONDS + HOLD_SECONDS_PER_FLOAT * n)


def _answer(connection: Connected, replies: queue.SimpleQueue[Any]) -> None:
    try:
        while (reply := replies.get()) is not _END:
            send(connection, reply)
    except OSError:
        pass  # the worker is gone
    finally:
        connection.close()


def _peer_user(connection: Connected) -> int:
    with socket.socket(fileno=os.dup(connection.fileno())) as peer:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)
