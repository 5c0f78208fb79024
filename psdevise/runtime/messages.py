"""Python objects over a `multiprocessing` connection; arrays in them go beside the pickle and are not copied into it.

Both ends are processes of one run, on one machine and of one user (`local` checks that), so a pickle is as safe as
the memory they share.
"""

from __future__ import annotations

import pickle
import struct
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

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
        EOFError: the other end is gone.
    """
    head = connection.recv_bytes()
    (count,) = struct.unpack_from("<I", head)
    sizes = struct.unpack_from(f"<{count}Q", head, 4)
    buffers = [bytearray(n) for n in sizes]
    for buffer in buffers:
        if buffer:
            connection.recv_bytes_into(buffer)
    return pickle.loads(memoryview(head)[4 + 8 * count :], buffers=buffers)
