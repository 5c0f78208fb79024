"""Python objects over a `multiprocessing` connection; arrays in them go beside the pickle and are not copied into it.

Both ends are processes of one run, on one machine and of one user (`local` checks that), so a pickle is as safe as
the memory they share.
"""

from __future__ import annotations

import pickle
import struct
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np

from psdevise.errors import BadMessage, PsdeviseError

Connected: TypeAlias = "Connection[Any, Any]"


def send(connection: Connected, message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [b.raw() for b in buffers]
    connection.send_bytes(struct.pack(f"<I{len(raw)}Q", len(raw), *(b.nbytes for b in raw)) + data)
    for part in raw:
        if part.nbytes:
            connection.send_bytes(part)


def receive(connection: Connected) -> Any:
    """
    Raises:
        EOFError, OSError: the other end is gone.
        BadMessage: what came is no message; what comes next cannot be told from it.
    """
    head = connection.recv_bytes()
    try:
        (count,) = struct.unpack_from("<I", head)
        sizes = struct.unpack_from(f"<{count}Q", head, 4)
        buffers = [np.empty(n, np.uint8) for n in sizes]  # unlike bytearrays, not filled with zeros first
        for buffer in buffers:
            if buffer.size and connection.recv_bytes_into(buffer) != buffer.size:
                raise BadMessage("a part is shorter than was announced")
        return pickle.loads(memoryview(head)[4 + 8 * count :], buffers=buffers)
    except (OSError, PsdeviseError):
        raise
    except Exception as e:  # a pickle may raise anything
        raise BadMessage(f"{type(e).__name__}: {e}") from e
