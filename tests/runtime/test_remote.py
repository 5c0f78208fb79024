"""A TCP stream between a shard and workers of other machines: real sockets and threads on loopback, no Ray."""

from __future__ import annotations

import gc
import pickle
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from psdevise.errors import BadGradient, DeadlineExceeded
from psdevise.runtime.actors import ShardActor
from psdevise.runtime.remote import STRANGERS, RemoteLink, RemoteServer
from psdevise.runtime.stream import NONCE, Spare
from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Ack, Array, Gradient, Identity, Landing, Pulled, Rows, Version
from psdevise.server.shard import LagOptions, Shard, ShardState
from psdevise.server.start import begin_phase
from psdevise.worker.effects import Call, ShardLost
from tests.cluster.faults import Proxy

N, ROWS, DIM = 100_001, 50, 7


class Pair:
    """A shard with its server, and a link to it. `death`: what the link is told when it asks."""

    def __init__(self) -> None:
        layout = Layout(dense=(Dense("w", (N,)),), tables=(Table("t", ROWS, DIM),), buffers=(Dense("b", (3,)),))
        rng = np.random.default_rng(0)
        self.start: dict[str, Array] = {
            "dense": rng.random(N, dtype=np.float32),
            "buffers": np.arange(3, dtype=np.float32),
            "table.t": rng.random((ROWS, DIM), dtype=np.float32),
        }
        self.lock, self.pushes, self.death = threading.Lock(), list[float](), ""
        self.shard = Shard(layout, 0, OptimizerOptions(), 9, ShardState(self.start, {}, Version(0, 4), {}))
        self.server = RemoteServer(self.shard, "127.0.0.1", self.lock, self.pushes.append)
        self.link = self.connect()

    def connect(self, port: int | None = None) -> RemoteLink:
        address = self.server.address
        return RemoteLink(address._replace(port=port or address.port), lambda: self.death)

    def pull(self, newer_than: Version | None = None, rows: object = None, buffers: bool = False) -> Pulled:
        into = Landing(np.zeros(N, np.float32), np.zeros(N, np.float32))
        call = Call(0, "pull", (rows, newer_than, True, buffers), into)
        reply = self.link.receive(self.link.send(call), 10)
        assert isinstance(reply, Pulled)
        assert reply.dense is None or reply.dense is into.dense, "it was copied to where it was wanted"
        return reply

    def push(self, dense: Array | None, sequence: int, **rows: tuple[Rows, Array]) -> object:
        identity = Identity(0, 1, sequence, 0)
        call = Call(0, "push", (Gradient(dense, rows), identity, self.shard.version, 1.0, None))
        return self.link.receive(self.link.send(call), 10)


@pytest.fixture
def pair() -> Pair:
    return Pair()


QUESTION = Call(0, "answer", (Identity(0, 1, 0, 0),))


def test_a_pull_brings_one_version_and_nothing_when_it_has_not_moved(pair: Pair) -> None:
    first = pair.pull(rows={"t": np.array([2, 3])}, buffers=True)
    assert first.version == Version(9, 4)
    np.testing.assert_array_equal(first.dense, pair.start["dense"])
    np.testing.assert_array_equal(first.accumulators, np.full(N, 0.1, np.float32))
    np.testing.assert_array_equal(first.rows["t"], pair.start["table.t"][2:4])
    np.testing.assert_array_equal(first.buffers, [0, 1, 2])
    again = pair.pull(newer_than=first.version)
    assert again.version == first.version
    assert again.dense is None


def test_pushes_are_torch_s_adagrad_each_once(pair: Pair) -> None:
    oracle = torch.tensor(pair.start["dense"], requires_grad=True)
    adagrad = torch.optim.Adagrad([oracle], lr=0.01, initial_accumulator_value=0.1, fused=True)
    rng = np.random.default_rng(1)
    for sequence in range(5):  # memory is used again from the second on
        gradient = rng.standard_normal(N).astype(np.float32)
        assert pair.push(gradient, sequence) == Ack(Version(9, 5 + sequence), 0, "applied")
        assert isinstance(pair.push(gradient, sequence), Ack)
        oracle.grad = torch.tensor(gradient)
        adagrad.step()
        np.testing.assert_array_equal(pair.pull().dense, oracle.detach().numpy())
    assert pair.shard.counts == {"applied": 5, "repeated": 5}
    assert len(pair.pushes) == 10


def test_rows_and_refusals(pair: Pair) -> None:
    rows = (np.array([3, 8]), np.ones((2, DIM), np.float32))
    assert isinstance(pair.push(None, 0, t=rows), Ack)
    pulled = pair.pull(rows={"t": np.array([2, 3])})
    np.testing.assert_array_equal(pulled.rows["t"][0], pair.start["table.t"][2])
    assert (pulled.rows["t"][1] < pair.start["table.t"][3]).all()
    assert isinstance(pair.push(np.full(N, np.nan, np.float32), 1), BadGradient)
    assert isinstance(pair.push(np.zeros(3, np.float32), 2), BadGradient)


def test_what_is_held_for_a_turn_is_not_overwritten_by_what_comes_next(pair: Pair) -> None:
    from psdevise.server.protocol import Turn

    turn, other = Turn(0, (0, 1)), pair.connect()
    for worker, link, value in ((0, pair.link, 1.0), (1, other, 3.0)):
        held = Gradient(np.full(N, value, np.float32))
        arguments = (held, Identity(worker, 1, 0, 0), Version(9, 4), 1.0, turn)
        assert isinstance(link.receive(link.send(Call(0, "push", arguments)), 10), Ack)
    oracle = torch.tensor(pair.start["dense"], requires_grad=True)
    oracle.grad = torch.full((N,), 2.0)
    torch.optim.Adagrad([oracle], lr=0.01, initial_accumulator_value=0.1, fused=True).step()
    np.testing.assert_array_equal(pair.pull().dense, oracle.detach().numpy())


def test_large_messages_both_ways_at_once_do_not_lock_each_other(pair: Pair) -> None:
    gradient = Gradient(np.ones(N, np.float32))
    into = Landing(np.zeros(N, np.float32), None)
    pulls, pushes = [], []
    for i in range(40):
        pulls.append(pair.link.send(Call(0, "pull", (None, None, False, False), into)))
        pushes.append(pair.link.send(Call(0, "push", (gradient, Identity(0, 1, i, 0), Version(9, 4), 1.0, None))))
    assert [pair.link.receive(p, 20).outcome for p in pushes] == ["applied"] * 40
    assert [pair.link.receive(p, 20).version.counter for p in pulls] == list(range(4, 44))


def test_no_pull_is_torn_while_a_writer_goes_at_full_speed() -> None:
    """Every version k of the shard holds k in all its places: a mixture is seen at once."""
    n, lock, over = 1_000_000, threading.Lock(), threading.Event()
    shard = Shard(Layout(dense=(Dense("w", (n,)),)), 0, OptimizerOptions(name="sgd", arguments={"lr": 1.0}), 1)
    server = RemoteServer(shard, "127.0.0.1", lock, lambda seconds: None)
    ones = np.full(n, -1 / 0.01, np.float32)  # the rate is .01: one more in every place

    def write() -> None:
        sequence = 0
        while not over.is_set():
            with lock:
                shard.push(Gradient(ones), Identity(5, 1, sequence, sequence), shard.version)
            sequence += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        link = RemoteLink(server.address, str)
        into, version, seen = Landing(np.zeros(n, np.float32), None), None, 0
        while seen < 20:
            reply = link.receive(link.send(Call(0, "pull", (None, version, False, False), into)), 20)
            if reply.dense is not None:
                assert into.dense.min() == into.dense.max(), "torn"
                assert abs(into.dense[0] - reply.version.counter) < 0.5
                version, seen = reply.version, seen + 1
    finally:
        over.set()
        writer.join()


def test_memory_is_used_again_and_never_while_it_is_held() -> None:
    spare = Spare(64)
    first = spare.take(64)
    floats = np.frombuffer(first, np.float32)  # as a pickle's arrays lie in what was taken
    where = first.ctypes.data
    second = spare.take(64)
    assert second.ctypes.data != where
    spare.give_back(floats)
    third = spare.take(64)
    assert third.ctypes.data == where
    spare.give_back(np.zeros(16, np.float32))  # not of here
    assert len(spare._free) == 0
    assert spare.take(8).nbytes == 8
    del first, second, third, floats
    gc.collect()
    assert len(spare._taken) == 0, "what was dropped instead is forgotten"


def test_a_stranger_learns_nothing_and_disturbs_nobody(pair: Pair) -> None:
    wrong = pair.server.address._replace(secret=b"guessed")
    with pytest.raises((ConnectionRefusedError, EOFError)):
        RemoteLink(wrong, str)
    with socket.create_connection(wrong[:2]) as silent, socket.create_connection(wrong[:2]) as echo:
        nonce = echo.recv(NONCE, socket.MSG_WAITALL)
        assert nonce != silent.recv(NONCE, socket.MSG_WAITALL)
        echo.sendall(nonce)
        shown = echo.recv(NONCE, socket.MSG_WAITALL)
        echo.sendall(shown)  # its own words back
        assert echo.recv(1) == b""
        echo.close()
        assert pair.pull().version == Version(9, 4)


@pytest.mark.parametrize("message", [None, 5, ("snapshot", ()), ("push", ()), ("push", (None,)), ("pull", 3), "push"])
def test_what_is_no_question_ends_its_connection_and_no_other(pair: Pair, message: object) -> None:
    other = pair.connect()
    other._outbox.put(message)
    with pytest.raises(ShardLost):
        other.receive(other.send(QUESTION), 10)
    assert pair.pull().version == Version(9, 4)


@pytest.mark.parametrize("size", [2**64 - 1, 1 << 62, (1 << 30) + 1])
def test_a_length_that_no_message_has_ends_its_connection_and_no_other(pair: Pair, size: int) -> None:
    other = pair.connect()
    other._stream._socket.sendall(struct.pack("<Q", size))
    with pytest.raises(ShardLost):
        other.receive(other.send(QUESTION), 10)
    assert pair.pull().version == Version(9, 4)


def test_a_part_longer_than_was_announced_is_no_message(pair: Pair) -> None:
    """What comes behind it could not be told from the rest of it."""
    other = pair.connect()
    body = pickle.dumps(("answer", (Identity(0, 1, 0, 0),)), protocol=5)
    head = struct.pack("<IQ", 1, 4) + body
    other._stream._socket.sendall(struct.pack("<Q", len(head)) + head + struct.pack("<Q", 8) + bytes(8))
    with pytest.raises(ShardLost):
        other.receive(other.send(QUESTION), 10)


def test_strangers_that_say_nothing_hold_few_threads_and_disturb_nobody_who_is_in(pair: Pair) -> None:
    silent = [socket.create_connection(pair.server.address[:2]) for _ in range(STRANGERS + 1)]
    try:
        for stranger in silent[:-1]:
            assert len(stranger.recv(NONCE, socket.MSG_WAITALL)) == NONCE
        silent[-1].settimeout(0.3)
        with pytest.raises(TimeoutError):
            silent[-1].recv(1)
        assert pair.pull().version == Version(9, 4)
    finally:
        for stranger in silent:
            stranger.close()
    late = pair.connect()
    assert late.receive(late.send(QUESTION), 10) is None


def test_a_closed_connection_is_a_lost_shard_and_a_silent_one_a_deadline(pair: Pair) -> None:
    with pair.lock:  # somebody keeps the shard
        ticket = pair.link.send(QUESTION)
        assert not pair.link.ready(ticket)
        with pytest.raises(DeadlineExceeded):
            pair.link.receive(ticket, 0.05)
    assert pair.link.receive(ticket, 10) is None
    pair.link._stream.close()
    with pytest.raises(ShardLost):
        pair.link.receive(pair.link.send(QUESTION), 10)
    with pytest.raises(ShardLost):
        pair.link.send(QUESTION)


def test_a_machine_without_power_is_a_lost_shard_as_soon_as_that_is_known(pair: Pair) -> None:
    """Nothing comes back, and nobody closes the connection, even while a large gradient is on its way."""
    with Proxy(pair.server.address.port) as proxy:
        link = pair.connect(proxy.port)
        assert link.receive(link.send(QUESTION), 10) is None
        proxy.silent.set()
        ticket = link.send(QUESTION)
        pair.death = "the node died"
        begin = time.monotonic()
        with pytest.raises(ShardLost, match="the node died"):
            link.receive(ticket, 30)
        assert time.monotonic() - begin < 10


def test_a_gradient_cut_off_on_its_way_is_not_applied(pair: Pair) -> None:
    with Proxy(pair.server.address.port) as proxy:
        link = pair.connect(proxy.port)
        proxy.cut_after = N  # bytes: a quarter of it
        call = Call(0, "push", (Gradient(np.ones(N, np.float32)), Identity(0, 1, 0, 0), Version(9, 4), 1.0, None))
        with pytest.raises(ShardLost):
            link.receive(link.send(call), 10)
    assert pair.push(np.ones(N, np.float32), 0) == Ack(Version(9, 5), 0, "applied")


def test_a_shard_that_cannot_listen_on_its_nodes_address_says_so_and_ray_carries_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.0.2.1")  # of nobody (RFC 5737), as behind a NAT
    layout = Layout(dense=(Dense("w", (2,)),))
    start = begin_phase(str(tmp_path), layout, lambda: {"w": np.zeros(2, np.float32)})
    shard = ShardActor(layout, 0, OptimizerOptions(), LagOptions(), 1, start.folder, start.manifest)
    assert shard.listen() is None
    assert shard.call("pull").version == Version(1, 0)
