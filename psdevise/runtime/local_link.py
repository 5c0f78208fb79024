"""A worker's way to a shard of its machine: the other end of `local`.

A pull that was torn `ATTEMPTS` times asks the shard to hold still; so does one that also wants table rows or buffers,
because all parts of a pull are of one version.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.connection import Client, Connection
from typing import Any, Final, TypeAlias

import numpy as np

from psdevise.errors import BadMessage, DeadlineExceeded, PsdeviseError
from psdevise.runtime.messages import receive, send
from psdevise.runtime.segment import Gradients, Segment, SharedView
from psdevise.runtime.shelf import LARGE, Shelf, nbytes_of
from psdevise.server.protocol import Array, Gradient, Landing, Pulled, Rows
from psdevise.worker.effects import Call, ShardLost

ATTEMPTS = 3
PATIENCE_SECONDS = 0.02
NO_VALUES: Final = np.empty((0, 0), np.float32)
Shapes: TypeAlias = dict[str, tuple[int, int]]
Connected: TypeAlias = "Connection[Any, Any]"


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
        nbytes, self._n, self._dims = receive(self._connection)
        self._view = SharedView(
            Segment(reduction.recv_handle(self._connection), nbytes, writable=False),  # type: ignore[arg-type]
            self._n,
        )
        self._gradients, self._known = gradients, 0
        self._sent = self._received = 0
        self._replies: dict[int, Any] = {}
        self._shelf = Shelf(lambda number, segment: self._hand_over("shelf", number, segment))
        self._pushed: dict[int, int] = {}  # a push on its way → the segment of the shelf with its rows
        self._asked: dict[int, tuple[int, Shapes]] = {}  # a pull on its way → where its rows come to
        self._read: int | None = None  # the segment with the rows of the last pull

    def send(self, call: Call) -> int | Call:
        """The number of the reply to come; a pull of dense parameters is made when it is received."""
        try:
            if call.method == "pull":
                return call if self._n else self._ask_pull(*call.arguments)
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

    def _hand_over(self, kind: str, number: int, segment: Segment) -> None:
        send(self._connection, (kind, number, segment.nbytes))
        reduction.send_handle(self._connection, segment.fd, 0)  # type: ignore[arg-type]

    def _ask(self, *message: Any) -> int:
        send(self._connection, message)
        self._sent += 1
        return self._sent - 1

    def _take(self) -> None:
        self._replies[self._received] = receive(self._connection)
        if self._received in self._pushed:
            self._shelf.give_back(self._pushed.pop(self._received))
        self._received += 1

    def _reply(self, number: int, end: float) -> Any:
        while number not in self._replies:
            if not self._connection.poll(max(0.0, end - time.monotonic())):
                raise DeadlineExceeded("the shard did not answer in time", mend="raise downpour.deadline")
            self._take()
        reply = self._with_rows(number, self._replies.pop(number))
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
            pulled = self._reply(self._ask_pull(*call.arguments), end)
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
        where = self._place_of(gradient.dense)
        if where is not None:
            gradient = replace(gradient, dense=None)
        rows, gradient = self._put_rows(gradient)
        asked = self._ask("push", where, rows, gradient, *rest)
        if rows is not None:
            self._pushed[asked] = rows[0]
        return asked

    def _place_of(self, dense: Array | None) -> tuple[int, int, int] | None:
        """(segment, byte offset, floats) of a gradient that lies in memory which the shard may read."""
        where = None if dense is None else self._gradients.find(dense)
        if where is None or dense is None:
            return None
        for number in range(self._known, len(self._gradients.segments)):
            self._hand_over("segment", number, self._gradients.segments[number])
        self._known = len(self._gradients.segments)
        return (*where, dense.size)

    # ------------------------------------------------------------------ rows

    def _ask_pull(self, rows: dict[str, Rows] | None, *rest: Any) -> int:
        shapes = {name: (len(ids), self._dims[name]) for name, ids in (rows or {}).items()}
        if nbytes_of(shapes.values()) < LARGE:
            return self._ask("pull", None, rows, *rest)
        place = self._shelf.take(shapes.values()), shapes
        asked = self._ask("pull", place, rows, *rest)
        self._asked[asked] = place
        return asked

    def _with_rows(self, number: int, reply: Any) -> Any:
        """A pull's rows lie where they came to until the next pull is received: by then they have been installed."""
        if number not in self._asked:
            return reply
        segment, shapes = self._asked.pop(number)
        if self._read is not None:
            self._shelf.give_back(self._read)
        self._read = segment
        if not isinstance(reply, Pulled):
            return reply
        return replace(reply, rows=dict(zip(shapes, self._shelf.arrays(segment, shapes.values()), strict=True)))

    def _put_rows(self, gradient: Gradient) -> tuple[tuple[int, Shapes] | None, Gradient]:
        """The rows' values go to the shelf; their numbers stay in the message."""
        shapes = {name: values.shape for name, (_, values) in gradient.rows.items()}
        if nbytes_of(shapes.values()) < LARGE:
            return None, gradient
        number = self._shelf.take(list(shapes.values()))
        for place, (_, values) in zip(
            self._shelf.arrays(number, list(shapes.values())), gradient.rows.values(), strict=True
        ):
            np.copyto(place, values)
        return (number, shapes), replace(gradient, rows={n: (ids, NO_VALUES) for n, (ids, _) in gradient.rows.items()})


def _pulled(pulled: Pulled, moved: bool, into: Landing, sums: Any) -> Pulled:
    """`version` is Pulled.version; what was copied is named, what was not is None."""
    return replace(pulled, dense=into.dense if moved else None, accumulators=sums if moved else None)
