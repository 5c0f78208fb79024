"""Python objects over a connection; arrays in them go beside the pickle and are not copied into it.

Both ends are processes of one run: of one user on one machine (`local` checks that), or with a secret that Ray brought
to both (`remote`). So a pickle is as safe as Ray's own calls.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from psdevise.errors import BadMessage, PsdeviseError


class Carrier(Protocol):
    """What is used of a `multiprocessing.connection.Connection`, and of a `remote.Stream`."""

    def send_bytes(self, data: Any, /) -> None: ...

    def recv_bytes(self) -> bytes: ...

    def recv_bytes_into(self, buffer: Any, /) -> int: ...


def _unfilled(nbytes: int) -> Any:
    return np.empty(nbytes, np.uint8)  # bytearrays would be filled with zeros first


def send(connection: Carrier, message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [b.raw() for b in buffers]
    connection.send_bytes(struct.pack(f"<I{len(raw)}Q", len(raw), *(b.nbytes for b in raw)) + data)
    for part in raw:
        if part.nbytes:
            connection.send_bytes(part)


def receive(connection: Carrier, allocate: Callable[[int], Any] = _unfilled) -> Any:
    """
    Args:
        allocate: number of bytes → memory for an array of the message.

    Raises:
        EOFError, OSError: the other end is gone.
        BadMessage: what came is no message; what comes next cannot be told from it.
    """
    try:
        head = connection.recv_bytes()
        (count,) = struct.unpack_from("<I", head)
        sizes = struct.unpack_from(f"<{count}Q", head, 4)
        buffers = [allocate(n) for n in sizes]
        for size, buffer in zip(sizes, buffers, strict=True):
            if size and connection.recv_bytes_into(buffer) != size:
                raise BadMessage("a part is shorter than was announced")
        return pickle.loads(memoryview(head)[4 + 8 * count :], buffers=buffers)
    except (EOFError, OSError, PsdeviseError):
        raise
    except Exception as e:  # a pickle may raise anything
        raise BadMessage(f"{type(e).__name__}: {e}") from e
