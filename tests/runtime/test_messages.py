"""Random bytes on a worker's connection: a typed error at whoever reads them, and a shard that goes on."""

from __future__ import annotations

import pickle
import struct
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Client
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psdevise.errors import BadMessage
from psdevise.runtime.local import LocalServer
from psdevise.runtime.local_link import LocalLink
from psdevise.runtime.messages import receive, send
from psdevise.runtime.segment import Gradients, SharedMemory, available
from psdevise.server.layout import Dense, Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Ack, Gradient, Identity, Landing, Pulled, Turn, Version
from psdevise.server.shard import Shard
from psdevise.worker.effects import Call

N = 8
FUZZ = settings(max_examples=150, derandomize=True, deadline=None)
TYPED = (BadMessage, EOFError, OSError)


def frame(r: Random) -> bytes:
    """Bytes as they may come: nothing of ours, a head that lies, a pickle that is cut off or turned."""
    whole = pickle.dumps(("push", None, None, Gradient(), Identity(0, 1, 2, 3), Version(1, 0), 1.0, None), protocol=5)
    match r.randrange(5):
        case 0:
            return r.randbytes(r.randint(1, 40))
        case 1:
            sizes = [r.choice([0, 1, 7, 1 << 20, 1 << 62, 2**64 - 1]) for _ in range(r.randint(1, 3))]
            return struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes) + whole
        case 2:
            return struct.pack("<I", r.choice([1, 2, 2**32 - 1])) + whole
        case 3:
            return struct.pack("<I", 0) + whole[: r.randrange(len(whole))]
        case _:
            values: list[Any] = [
                None,
                5,
                (),
                ("push",),
                ("segment", "x", -1),
                ("call", "__init__"),
                ("call", "push", None),
            ]
            values += [
                ("pull", None, {"t": None}, None, False, False),
                ("go", 1),
                {"a": 1},
                ("call",),
                ("push", (9, 0, 4), None, Gradient()),
                ("push", None, (9, {"t": (1, 1)}), Gradient()),
                ("pull", (0, {"t": (1 << 40, 1)}), None, None, False, False),
            ]
            return struct.pack("<I", 0) + pickle.dumps(r.choice(values), protocol=5)


@FUZZ
@given(st.integers(0, 2**32))
def test_any_bytes_are_a_message_or_a_typed_error(seed: int) -> None:
    r = Random(seed)
    here, there = Pipe()
    there.send_bytes(frame(r))
    for _ in range(r.randrange(3)):
        there.send_bytes(r.randbytes(r.choice([1, 7, 2000])))
    there.close()
    try:
        receive(here)
    except TYPED:
        pass
    finally:
        here.close()


@pytest.fixture(scope="module")
def server() -> tuple[Shard, LocalServer]:
    memory = SharedMemory(N)
    shard = Shard(Layout(dense=(Dense("w", (N,)),)), 0, OptimizerOptions(), 1, memory=memory)
    return shard, LocalServer(shard, memory, threading.Lock(), lambda seconds: None)


@pytest.mark.skipif(not available, reason="needs Linux's memfd")
@pytest.mark.timeout(60)
@settings(FUZZ, max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_a_shard_goes_on_whatever_a_worker_sends(server: tuple[Shard, LocalServer], seed: int) -> None:
    r, (shard, local) = Random(seed), server
    stranger = Client(local.address, "AF_UNIX")
    try:
        for _ in range(r.randint(1, 3)):
            stranger.send_bytes(frame(r))
    except OSError:
        pass  # the shard has hung up
    stranger.close()
    gradients = Gradients()
    link = LocalLink(local.address, gradients)
    into = Landing(np.empty(N, np.float32), None)
    pulled = link.receive(link.send(Call(0, "pull", (None, None, False, False), into)), 20)
    assert isinstance(pulled, Pulled)
    dense = gradients.allocate(N)
    dense[:] = 1
    identity = Identity(7, 1, pulled.version.counter, 0)
    call = Call(0, "push", (Gradient(dense, {}, 4), identity, pulled.version, 1.0, None))
    reply = link.receive(link.send(call), 20)
    assert isinstance(reply, Ack)
    assert reply.outcome == "applied"
    assert shard.version == reply.version
    link._connection.close()


PLAIN = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just(Version(1, 0)) | st.just(Turn(0, (0,)))


@settings(FUZZ, max_examples=200)
@given(st.tuples(PLAIN, PLAIN, PLAIN, PLAIN, PLAIN))
def test_arguments_of_any_kind_leave_the_shard_as_it_was(arguments: tuple[Any, ...]) -> None:
    shard = Shard(Layout(dense=(Dense("w", (N,)),)), 0, OptimizerOptions(), 1)
    before = shard.snapshot()
    answer = LocalServer._call(_Bare(shard), "push", *arguments)  # type: ignore[arg-type]
    assert isinstance(answer, Exception)
    after = shard.snapshot()
    assert after.version == before.version
    np.testing.assert_array_equal(after.tensors["dense"], before.tensors["dense"])


class _Bare:
    """What `LocalServer._call` needs of a server."""

    def __init__(self, shard: Shard) -> None:
        self._shard, self._lock = shard, threading.Lock()


def test_a_stopped_peer_does_not_keep_a_worker_for_ever() -> None:
    """A shard that is stopped in the middle of a message."""
    import socket

    from psdevise.runtime.local_link import _limit

    ours, theirs = socket.socketpair()
    from multiprocessing.connection import Connection

    connection: Any = Connection(ours.detach())
    _limit(connection, 0.2)
    theirs.sendall(struct.pack("!i", 100) + b"half of it")
    with pytest.raises(OSError):
        receive(connection)
    with pytest.raises(OSError):
        send(connection, np.zeros(10_000_000, np.uint8))
    theirs.close()
    connection.close()
