"""Shard and worker on two machines: one TCP stream, on which arrays go raw behind short messages. No Ray call.

    worker                                  shard (a thread per worker, one call at a time)
      │ ── connect ─────────────────────────► │
      │ ◄── each proves to the other that it has the secret that Ray brought to both ──►
      │ ── pull ────────────────────────────► │  copies its arena, so that it need not hold still while that travels
      │ ◄─────────────────── the arena, raw ─ │
      │ ── push, the gradient raw ──────────► │  applies it from where it landed
      │ ◄──────────────────────────── Ack ─── │

Threads of their own send and receive, so that a worker computes meanwhile. The stream is not encrypted, as Ray's own
transfers are not.
"""

from __future__ import annotations

import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from psdevise.errors import BadMessage, DeadlineExceeded, PsdeviseError
from psdevise.monitor.logs import logger
from psdevise.runtime.messages import receive, send
from psdevise.runtime.stream import CONNECT_SECONDS, Spare, Stream
from psdevise.server.protocol import Gradient, Pulled
from psdevise.server.shard import Shard
from psdevise.worker.effects import Call, ShardLost

QUIET_SECONDS = 1.0  # without an answer, after which a worker asks whether the shard still lives
RETRY_SECONDS = 0.2
STRANGERS = 64  # connections that have not proved yet that they know the secret: each holds a thread and a descriptor
_END: Final = object()


class Address(NamedTuple):
    """Where a shard listens, the secret that opens its door, and how many floats its range has."""

    host: str
    port: int
    secret: bytes
    n: int


class RemoteServer:
    """Serves a shard to the workers of other machines.

    Args:
        host: the address of this machine's to listen on, and no other.
        lock: held while the shard is used, by whomever.
        on_push: called with the seconds that a push took.
    """

    def __init__(self, shard: Shard, host: str, lock: threading.Lock, on_push: Callable[[float], None]) -> None:
        self._shard, self._lock, self._on_push = shard, lock, on_push
        start, stop = shard.layout.range(shard.index)
        n = stop - start
        self._spare = Spare(4 * n)
        self._strangers = threading.BoundedSemaphore(STRANGERS)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=128)
        self.address = Address(host, self._listener.getsockname()[1], secrets.token_bytes(32), n)
        threading.Thread(target=self._accept, daemon=True, name="remote-accept").start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:  # that one is gone again, or there are too many open files: others may have more luck
                time.sleep(RETRY_SECONDS)
                continue
            if not self._strangers.acquire(timeout=CONNECT_SECONDS):
                connected.close()
                continue
            threading.Thread(target=self._serve, args=(Stream(connected),), daemon=True, name="remote-serve").start()

    def _serve(self, stream: Stream) -> None:
        replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            try:
                stream.prove(self.address.secret, b"shard", b"worker")
            finally:
                self._strangers.release()
            threading.Thread(target=self._answer, args=(stream, replies), daemon=True, name="remote-answer").start()
            while True:
                method, arguments = _question(receive(stream, self._spare.take))
                begin = time.perf_counter()
                replies.put(self._call(method, arguments))
                if method == "push":
                    self._on_push(time.perf_counter() - begin)
                    self._spare.give_back(arguments[0].dense)
        except (EOFError, OSError):
            stream.close()  # the worker is gone, has done, or was a stranger
        except BadMessage as e:
            logger.error("shard %d ended the connection to a worker of another machine: %s", self._shard.index, e)
            stream.close()
        finally:
            replies.put(_END)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        with self._lock:
            try:
                found = getattr(self._shard, method)(*arguments)
            except Exception as e:  # a PsdeviseError is an answer; anything else the worker raises
                return e
            if not isinstance(found, Pulled):
                return found
            return replace(
                found,
                dense=self._copied(found.dense),
                accumulators=self._copied(found.accumulators),
                buffers=None if found.buffers is None else found.buffers.copy(),
            )

    def _copied(self, array: Any) -> Any:
        if array is None:
            return None
        copy = self._spare.take(array.nbytes).view(np.float32)
        np.copyto(copy, array)
        return copy

    def _answer(self, stream: Stream, replies: queue.SimpleQueue[Any]) -> None:
        try:
            while (reply := replies.get()) is not _END:
                send(stream, reply)
                if isinstance(reply, Pulled):
                    self._spare.give_back(reply.dense)
                    self._spare.give_back(reply.accumulators)
        except OSError:
            pass  # the worker is gone
        finally:
            stream.close()


METHODS = frozenset({"pull", "push", "answer", "average"})


def _question(message: Any) -> tuple[str, tuple[Any, ...]]:
    """
    Raises:
        BadMessage: it is none.
    """
    match message:
        case (str(method), tuple(arguments)) if method in METHODS:
            if method != "push" or (arguments and isinstance(arguments[0], Gradient)):
                return method, arguments
    raise BadMessage("it is nothing that is asked of a shard")


class Asked(NamedTuple):
    """A call on its way, and the number of the reply to come."""

    number: int
    call: Call


class RemoteLink:
    """A worker's way to one shard of another machine.

    Args:
        lost: asked while there is no answer; says why the shard will not answer any more, or nothing. A machine that
            lost its power closes no connection.

    Raises:
        OSError, EOFError: there is no way from here to there.
    """

    def __init__(self, address: Address, lost: Callable[[], str]) -> None:
        self._stream = Stream(socket.create_connection(address[:2], CONNECT_SECONDS))
        try:
            self._stream.prove(address.secret, b"worker", b"shard")
        except BaseException:
            self._stream.close()
            raise
        self._spare, self._lost = Spare(4 * address.n), lost
        self._sent = self._received = 0
        self._replies: dict[int, Any] = {}
        self._broken = ""
        self._changed = threading.Condition()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for work in (self._send, self._receive):
            threading.Thread(target=work, daemon=True, name=f"remote{work.__name__}").start()

    def send(self, call: Call) -> Asked:
        """What the call holds must not change until it is answered."""
        if self._broken:
            raise ShardLost(self._broken)
        self._outbox.put((call.method, call.arguments))
        self._sent += 1
        return Asked(self._sent - 1, call)

    def ready(self, ticket: Asked) -> bool:
        """Whether `receive` would not wait."""
        return bool(ticket.number in self._replies or self._broken)

    def receive(self, ticket: Asked, deadline: float) -> Any:
        """The reply.

        Raises:
            ShardLost, DeadlineExceeded: after `deadline` seconds.
        """
        end = time.monotonic() + deadline
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.ready(ticket), max(0.0, min(QUIET_SECONDS, end - time.monotonic())))
                if ticket.number in self._replies:
                    return self._landed(self._replies.pop(ticket.number), ticket.call)
                if self._broken:
                    raise ShardLost(self._broken)
            if time.monotonic() >= end:
                raise DeadlineExceeded("the shard did not answer in time", mend="raise downpour.deadline")
            if reason := self._lost():
                self.close(reason)

    def close(self, reason: str = "closed") -> None:
        with self._changed:
            self._broken = self._broken or reason
            self._changed.notify_all()
        self._outbox.put(_END)
        self._stream.close()

    def _landed(self, reply: Any, call: Call) -> Any:
        """A pull's arrays, copied to where the worker wants them; their own memory is used again."""
        if isinstance(reply, Exception) and not isinstance(reply, PsdeviseError):
            raise reply
        if not isinstance(reply, Pulled) or reply.dense is None or call.into is None:
            return reply
        into = call.into
        np.copyto(into.dense, reply.dense)
        self._spare.give_back(reply.dense)
        sums = reply.accumulators
        if sums is not None and into.accumulators is not None:
            np.copyto(into.accumulators, sums)
            self._spare.give_back(sums)
            sums = into.accumulators
        return replace(reply, dense=into.dense, accumulators=sums)

    # ------------------------------------------------------------------ threads

    def _send(self) -> None:
        try:
            while (message := self._outbox.get()) is not _END:
                send(self._stream, message)
        except OSError as e:
            self.close(f"the connection broke: {e}")

    def _receive(self) -> None:
        try:
            while True:
                reply = receive(self._stream, self._spare.take)
                with self._changed:
                    self._replies[self._received] = reply
                    self._received += 1
                    self._changed.notify_all()
        except (EOFError, OSError, BadMessage) as e:
            self.close(f"the connection broke: {e or 'its other end is closed'}")
