"""Shard and worker on one machine: gradients and parameters through shared memory, short messages through a Unix
socket. No Ray call, and one copy each way.

    worker                                   shard (a thread per worker, one call at a time)
      │ ── connect ─────────────────────────► │  checks that the peer is the same user
      │ ◄─────────────── arena, read-only ─── │
      │    pull: copies the arena itself, again if it changed meanwhile (`SharedView.copy`)
      │ ── push (segment, offset, identity) ► │  applies it from the worker's memory
      │ ◄──────────────────────────── Ack ─── │

A pull that was torn `ATTEMPTS` times asks the shard to hold still; so does one that also wants table rows or buffers,
because all parts of a pull are of one version.
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
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, Final, TypeAlias

import numpy as np

from psdevise.errors import BadMessage, DeadlineExceeded, PsdeviseError
from psdevise.monitor.logs import logger
from psdevise.runtime.messages import receive, send
from psdevise.runtime.segment import Gradients, Segment, SharedMemory, SharedView
from psdevise.server.protocol import Gradient, Landing, Pulled
from psdevise.server.shard import Shard
from psdevise.worker.effects import Call, ShardLost

ATTEMPTS = 3
HOLD_SECONDS = 1.0
HOLD_SECONDS_PER_FLOAT = 2e-8  # a copy at 200 MB/s
PATIENCE_SECONDS = 0.02
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
            send(connection, (self._memory.segment.nbytes, stop - start))
            fd = self._memory.segment.read_only()
            try:
                reduction.send_handle(connection, fd, 0)  # type: ignore[arg-type]
            finally:
                os.close(fd)
            # Replies leave by a thread of their own: were both ends to write large messages at once, each would
            # wait for the other to read.
            threading.Thread(target=_answer, args=(connection, replies), daemon=True, name="local-answer").start()
            segments: dict[int, Segment] = {}
            while True:
                message = receive(connection)
                try:
                    self._obey(message, connection, replies, segments)
                except (TypeError, ValueError, KeyError, AttributeError) as e:
                    raise BadMessage(f"{type(e).__name__}: {e}") from e
        except (EOFError, OSError):
            pass  # the worker is gone, or has done
        except BadMessage as e:
            logger.error("shard %d ended the connection to a worker of this machine: %s", self._shard.index, e)
        finally:
            replies.put(_END)

    def _obey(
        self, message: Any, connection: Connected, replies: queue.SimpleQueue[Any], segments: dict[int, Segment]
    ) -> None:
        kind, *arguments = message
        if kind == "segment":
            number, nbytes = arguments
            segments[number] = Segment(reduction.recv_handle(connection), nbytes, writable=False)  # type: ignore[arg-type]
        elif kind == "pull":
            self._pull(connection, replies, arguments)
        elif kind == "push":
            where, gradient, *rest = arguments
            if where is not None:
                number, offset, n = where
                gradient = replace(gradient, dense=segments[number].floats(offset, n))
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

    def _pull(self, connection: Connected, replies: queue.SimpleQueue[Any], arguments: list[Any]) -> None:
        """Answers with all but the dense part, and holds still while the worker copies that: at most
        `HOLD_SECONDS`, for a worker may die or sleep, and then finds its copy torn."""
        with self._lock:
            try:
                pulled = self._shard.pull(*arguments)
            except Exception as e:
                replies.put(e)
                return
            n = 0 if pulled.dense is None else pulled.dense.size
            dense = None if pulled.dense is None else pulled.dense[:0]  # it has moved: come and copy it
            buffers = None if pulled.buffers is None else pulled.buffers.copy()
            replies.put(replace(pulled, dense=dense, accumulators=None, buffers=buffers))
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


def _limit(connection: Connected, seconds: float) -> None:
    """No read or write of this end takes longer: it is an OSError then."""
    span = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)


class LocalLink:
    """A worker's way to one shard of its machine.

    Args:
        deadline: seconds that the shard may keep a message half written, or half read (it may have been stopped).

    Raises:
        ConnectionRefusedError: the shard is on another machine.
    """

    def __init__(self, address: str, gradients: Gradients, deadline: float = 60.0) -> None:
        self._connection = Client(address, "AF_UNIX")
        _limit(self._connection, deadline)
        nbytes, self._n = receive(self._connection)
        self._view = SharedView(
            Segment(reduction.recv_handle(self._connection), nbytes, writable=False),  # type: ignore[arg-type]
            self._n,
        )
        self._gradients, self._known = gradients, 0
        self._sent = self._received = 0
        self._replies: dict[int, Any] = {}

    def send(self, call: Call) -> int | Call:
        """The number of the reply to come; a pull of dense parameters is made when it is received."""
        try:
            if call.method == "pull":
                return call if self._n else self._ask("pull", *call.arguments)
            if call.method == "push":
                return self._push(*call.arguments)
            return self._ask("call", call.method, *call.arguments)
        except OSError as e:
            raise ShardLost(f"the connection broke: {e}") from e

    def ready(self, ticket: int | Call) -> bool:
        """Whether `receive` would not wait."""
        if isinstance(ticket, Call):
            return True
        try:
            while ticket not in self._replies and self._connection.poll(0):
                self._take()
        except (EOFError, OSError, BadMessage):
            return True
        return ticket in self._replies

    def receive(self, ticket: int | Call, deadline: float) -> Any:
        """The reply.

        Raises:
            ShardLost, DeadlineExceeded: after `deadline` seconds.
        """
        try:
            if isinstance(ticket, Call):
                return self._pull(ticket, time.monotonic() + deadline)
            return self._reply(ticket, time.monotonic() + deadline)
        except (EOFError, OSError, BadMessage) as e:
            raise ShardLost(f"the connection broke: {e}") from e

    # ------------------------------------------------------------------ messages

    def _ask(self, *message: Any) -> int:
        send(self._connection, message)
        self._sent += 1
        return self._sent - 1

    def _take(self) -> None:
        self._replies[self._received] = receive(self._connection)
        self._received += 1

    def _reply(self, number: int, end: float) -> Any:
        while number not in self._replies:
            if not self._connection.poll(max(0.0, end - time.monotonic())):
                raise DeadlineExceeded("the shard did not answer in time", mend="raise downpour.deadline")
            self._take()
        reply = self._replies.pop(number)
        if isinstance(reply, Exception) and not isinstance(reply, PsdeviseError):
            raise reply
        return reply

    # ------------------------------------------------------------------ pull and push

    def _pull(self, call: Call, end: float) -> Any:
        rows, newer_than, accumulators, buffers = call.arguments
        into = call.into or Landing(np.empty(self._n, np.float32), None)
        sums = (
            (np.empty(self._n, np.float32) if into.accumulators is None else into.accumulators)
            if accumulators
            else None
        )
        self._await_pushes()
        for _ in range(0 if rows or buffers else ATTEMPTS):
            if (found := self._view.copy(newer_than, into.dense, sums)) is not None:
                return _pulled(Pulled(found[0]), found[1], into, sums)
        while True:
            pulled = self._reply(self._ask("pull", *call.arguments), end)
            if isinstance(pulled, PsdeviseError):
                return pulled
            moved = pulled.dense is not None
            found = self._view.copy(None, into.dense, sums) if moved else (pulled.version, False)
            if moved:
                send(self._connection, ("go",))
            if found is not None and found[0] == pulled.version:
                return _pulled(pulled, moved, into, sums)

    def _await_pushes(self) -> None:
        """Lets the shard apply this worker's own pushes first, for a little while: they would tear the copy, and
        belong in it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._received < self._sent and self._connection.poll(max(0.0, end - time.monotonic())):
            self._take()

    def _push(self, gradient: Gradient, *rest: Any) -> int:
        dense = gradient.dense
        where = None if dense is None else self._gradients.find(dense)
        if where is None or dense is None:
            return self._ask("push", None, gradient, *rest)
        for number in range(self._known, len(self._gradients.segments)):
            segment = self._gradients.segments[number]
            send(self._connection, ("segment", number, segment.nbytes))
            reduction.send_handle(self._connection, segment.fd, 0)  # type: ignore[arg-type]
        self._known = len(self._gradients.segments)
        return self._ask("push", (*where, dense.size), replace(gradient, dense=None), *rest)


def _pulled(pulled: Pulled, moved: bool, into: Landing, sums: Any) -> Pulled:
    """`version` is Pulled.version; what was copied is named, what was not is None."""
    return replace(pulled, dense=into.dense if moved else None, accumulators=sums if moved else None)
