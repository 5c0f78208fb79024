"""A TCP connection between two machines of one run, each of which has shown the other that it knows a secret."""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from psdevise.errors import BadMessage

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 180  # without a sign of the other end, after which the kernel gives the connection up
_PATIENCE = {
    "TCP_KEEPIDLE": SILENT_SECONDS // 3,
    "TCP_KEEPINTVL": SILENT_SECONDS // 9,
    "TCP_KEEPCNT": 6,
    "TCP_USER_TIMEOUT": 1000 * SILENT_SECONDS,
}
NONCE = 32
LONGEST = 1 << 30  # bytes of a message, but for the arrays beside it
Memory = npt.NDArray[np.uint8]


class Stream:
    """A TCP connection with the methods of a `multiprocessing` one; what is received lands where it is wanted."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        with suppress(OSError):  # it may be gone already, which the first read will tell
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _PATIENCE.items():
                if hasattr(socket, name):
                    connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def prove(self, secret: bytes, own: bytes, other: bytes) -> None:
        """Both ends show that they know the secret, and never send it.

        Args:
            own, other: the ends' names, so that neither can be answered with its own words.

        Raises:
            ConnectionRefusedError: the other end does not know it.
        """
        self._socket.settimeout(CONNECT_SECONDS)
        mine = secrets.token_bytes(NONCE)
        self._socket.sendall(mine)
        theirs = bytes(self._exactly(bytearray(NONCE)))
        self._socket.sendall(_proof(secret, own, mine + theirs))
        shown = bytes(self._exactly(bytearray(NONCE)))
        if not hmac.compare_digest(shown, _proof(secret, other, theirs + mine)):
            raise ConnectionRefusedError("the other end does not know the secret")
        self._socket.settimeout(None)

    def send_bytes(self, data: Any) -> None:
        body = memoryview(data).cast("B")
        head = struct.pack("<Q", body.nbytes)
        sent = self._socket.sendmsg([head, body])
        if sent < len(head):
            self._socket.sendall(head[sent:])
        if sent < len(head) + body.nbytes:
            self._socket.sendall(body[max(0, sent - len(head)) :])

    def recv_bytes(self) -> bytes:
        """
        Raises:
            BadMessage: more comes than any message is long without its arrays.
        """
        (size,) = struct.unpack("<Q", self._exactly(bytearray(8)))
        if size > LONGEST:
            raise BadMessage(f"a message of {size} bytes is announced")
        return bytes(self._exactly(bytearray(size)))

    def recv_bytes_into(self, buffer: Any) -> int:
        """
        Raises:
            BadMessage: more comes than there is room for.
        """
        (size,) = struct.unpack("<Q", self._exactly(bytearray(8)))
        room = memoryview(buffer).cast("B")
        if size > room.nbytes:
            raise BadMessage(f"{size} bytes come where {room.nbytes} were announced")
        return len(self._exactly(room[:size]))

    def close(self) -> None:
        with suppress(OSError):  # wakes the threads that wait at either end of it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _exactly(self, buffer: bytearray | memoryview) -> bytearray | memoryview:
        view, done = memoryview(buffer), 0
        while done < view.nbytes:
            got = self._socket.recv_into(view[done:], 0, socket.MSG_WAITALL)
            if not got:
                raise EOFError
            done += got
        return buffer


def _proof(secret: bytes, who: bytes, nonces: bytes) -> bytes:
    return hmac.digest(secret, who + nonces, "sha256")


class Spare:
    """Memory for arrays of `nbytes`, whose pages were mapped when it was used before."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._free: list[Memory] = []
        self._taken: WeakValueDictionary[int, Memory] = WeakValueDictionary()  # by address
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> Memory:
        if nbytes != self._nbytes:
            return np.empty(nbytes, np.uint8)
        with self._lock:
            found = self._free.pop() if self._free else np.empty(nbytes, np.uint8)
            self._taken[found.ctypes.data] = found
            return found

    def give_back(self, array: npt.NDArray[Any] | None) -> None:
        """The memory under `array` is free for the next, if it was taken here."""
        if array is None:
            return
        with self._lock:
            if (found := self._taken.pop(array.ctypes.data, None)) is not None:
                self._free.append(found)
