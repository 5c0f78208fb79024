"""A TCP proxy on loopback with faults: refused, silent, cut off after so many bytes of the server's answers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType


class Proxy:
    """Passes connections on to `port`; use it as a context.

    Attributes:
        port: where it listens.
        silent: while set, what the client sends is swallowed and nothing is answered.
        deaf_after: bytes of upload after which nothing more of a connection is read; None never.
        cut_after: bytes of upload after which a connection is reset; None never. Downloads: `cut_answer_after`.
        cuts: connections that were reset.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.silent = threading.Event()
        self.deaf_after: int | None = None
        self._ended = threading.Event()
        self.cut_after: int | None = None
        self.cut_answer_after: int | None = None
        self.cuts = 0
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def refuse(self) -> None:
        """From now on nobody listens."""
        self.__exit__(None, None, None)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {client, server}
                threading.Thread(target=self._pass, args=(client, server, "cut_after"), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, "cut_answer_after"), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, limit: str) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if limit == "cut_after" and self.deaf_after is not None and passed + len(data) > self.deaf_after:
                    self._ended.wait()
                if self.silent.is_set():
                    continue
                passed += len(data)
                most = getattr(self, limit)
                if most is not None and passed > most:
                    self.cuts += 1
                    for end in (source, sink):
                        _reset(end)
                    return
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            _reset(end)


def _reset(end: socket.socket) -> None:
    """Closes with RST: after a mere FIN the kernel would take what the peer still sends until its buffer is full, and
    a peer in the middle of an upload would wait for ever."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    end.close()
