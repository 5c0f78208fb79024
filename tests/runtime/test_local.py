"""Shared memory and sockets between a shard and workers of its machine: real memory and threads, no Ray."""

from __future__ import annotations

import errno
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from psdevise.errors import BadGradient, DeadlineExceeded, ResourceError
from psdevise.runtime.local import LocalServer
from psdevise.runtime.local_link import ATTEMPTS, LocalLink
from psdevise.runtime.segment import Gradients, Segment, SharedMemory, SharedView, available
from psdevise.server.layout import Dense, Layout, Table
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Ack, Array, Gradient, Identity, Landing, Pulled, Rows, Turn, Version
from psdevise.server.shard import Shard, ShardState
from psdevise.worker.effects import Call, ShardLost

pytestmark = pytest.mark.skipif(not available, reason="needs Linux's memfd")
N, ROWS, DIM = 10_001, 50, 7


class Pair:
    """A shard with its server, and a link to it."""

    def __init__(self) -> None:
        layout = Layout(dense=(Dense("w", (N,)),), tables=(Table("t", ROWS, DIM),), buffers=(Dense("b", (3,)),))
        rng = np.random.default_rng(0)
        tensors = {
            "dense": rng.random(N, dtype=np.float32),
            "buffers": np.arange(3, dtype=np.float32),
            "table.t": rng.random((ROWS, DIM), dtype=np.float32),
        }
        state = ShardState(tensors, {}, Version(0, 4), {})
        self.memory, self.lock = SharedMemory(N), threading.Lock()
        self.shard = Shard(layout, 0, OptimizerOptions(), 9, state, memory=self.memory)
        self.pushes: list[float] = []
        self.server = LocalServer(self.shard, self.memory, self.lock, self.pushes.append)
        self.gradients = Gradients()
        self.link = LocalLink(self.server.address, self.gradients)
        self.start = tensors

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


def test_a_pull_brings_one_version_and_nothing_when_it_has_not_moved(pair: Pair) -> None:
    first = pair.pull()
    assert first.version == Version(9, 4)
    assert first.dense is not None
    np.testing.assert_array_equal(first.dense, pair.start["dense"])
    np.testing.assert_array_equal(first.accumulators, np.full(N, 0.1, np.float32))
    again = pair.pull(newer_than=first.version)
    assert again.version == first.version
    assert again.dense is None


def test_a_push_from_shared_memory_is_torch_s_adagrad_and_only_a_message(pair: Pair) -> None:
    gradient = pair.gradients.allocate(N)
    gradient[:] = np.random.default_rng(1).standard_normal(N)
    ack = pair.push(gradient, 0)
    assert ack == Ack(Version(9, 5), 0, "applied")
    oracle = torch.tensor(pair.start["dense"], requires_grad=True)
    oracle.grad = torch.tensor(gradient)
    torch.optim.Adagrad([oracle], lr=0.01, initial_accumulator_value=0.1, fused=True).step()
    pulled = pair.pull()
    np.testing.assert_array_equal(pulled.dense, oracle.detach().numpy())
    assert pulled.accumulators is not None
    np.testing.assert_allclose(pulled.accumulators, 0.1 + gradient**2, rtol=1e-6)
    assert isinstance(pair.push(gradient, 0), Ack)
    assert pair.shard.counts["repeated"] == 1
    assert len(pair.pushes) == 2


def test_a_push_from_memory_of_its_own_rows_buffers_and_refusals(pair: Pair) -> None:
    rows = (np.array([3, 8]), np.ones((2, DIM), np.float32))
    assert isinstance(pair.push(np.zeros(N, np.float32), 0, t=rows), Ack)
    pulled = pair.pull(rows={"t": np.array([2, 3])}, buffers=True)
    np.testing.assert_array_equal(pulled.rows["t"][0], pair.start["table.t"][2])
    assert (pulled.rows["t"][1] < pair.start["table.t"][3]).all()
    np.testing.assert_array_equal(pulled.buffers, [0, 1, 2])
    assert pulled.dense is not None
    np.testing.assert_array_equal(pulled.dense, pair.start["dense"])
    assert isinstance(pair.push(np.full(N, np.nan, np.float32), 1), BadGradient)
    assert pair.shard.version.counter == 5


def test_large_messages_both_ways_at_once_do_not_lock_each_other(pair: Pair) -> None:
    """A worker that asked for many rows and pushes many before it reads them."""
    layout = Layout(tables=(Table("t", 20_000, 64),))
    shard = Shard(layout, 0, OptimizerOptions(), 1)
    server = LocalServer(shard, SharedMemory(0), threading.Lock(), lambda seconds: None)
    link = LocalLink(server.address, Gradients())
    ids = np.arange(20_000)
    gradient = Gradient(None, {"t": (ids, np.ones((20_000, 64), np.float32))})
    pulls = [link.send(Call(0, "pull", ({"t": ids}, None, False, False))) for _ in range(4)]
    pushes = [link.send(Call(0, "push", (gradient, Identity(0, 1, i, 0), Version(1, 0), 1.0, None))) for i in range(4)]
    assert [link.receive(p, 20).outcome for p in pushes] == ["applied"] * 4
    for pull in pulls:  # all four were served before the first push
        found = link.receive(pull, 20)
        assert (found.version.counter, float(np.abs(found.rows["t"]).max())) == (0, 0.0)


def test_many_rows_come_and_go_through_memory_that_is_used_again() -> None:
    """Against a table of the test's own; the push of a turn keeps its values while others use the memory."""
    n, dim = 5_000, 32
    layout = Layout(tables=(Table("t", n, dim), Table("small", 3, 1)))
    shard = Shard(layout, 0, OptimizerOptions(table_rule="sum"), 1)
    server = LocalServer(shard, SharedMemory(0), threading.Lock(), lambda seconds: None)
    links = [LocalLink(server.address, Gradients()) for _ in range(2)]
    rng, mine = np.random.default_rng(0), np.zeros((n, dim), np.float32)

    def push(worker: int, sequence: int, ids: Rows, values: Array, turn: Turn | None = None) -> Ack:
        rows = {"t": (ids, values), "small": (np.array([1]), np.ones((1, 1), np.float32))}
        arguments = Gradient(None, rows), Identity(worker, 1, sequence, 0), shard.version, 1.0, turn
        reply = links[worker].receive(links[worker].send(Call(0, "push", arguments)), 20)
        assert isinstance(reply, Ack)
        return reply

    for sequence, many in enumerate((600, 5_000, 40, 3_000, 700)):
        ids = np.sort(rng.choice(n, many, replace=False))
        values = rng.standard_normal((many, dim)).astype(np.float32)
        assert push(0, sequence, ids, values).outcome == "applied"
        mine[ids] -= values
        call = Call(0, "pull", ({"t": ids, "small": np.array([1])}, None, False, False))
        pulled = links[0].receive(links[0].send(call), 20)
        np.testing.assert_array_equal(pulled.rows["t"], mine[ids])
        assert pulled.rows["small"] == -(sequence + 1)
    everything = np.arange(n)
    assert push(0, 5, everything, np.full((n, dim), 2, np.float32), turn := Turn(0, (0, 1))).outcome == "held"
    links[0].receive(links[0].send(Call(0, "pull", ({"t": everything}, None, False, False))), 20)
    assert push(1, 0, everything, np.full((n, dim), 4, np.float32), turn).outcome == "applied"
    found = links[1].receive(links[1].send(Call(0, "pull", ({"t": everything}, None, False, False))), 20)
    np.testing.assert_allclose(found.rows["t"], mine - 3, atol=1e-5)
    with pytest.raises(IndexError):
        links[1].receive(links[1].send(Call(0, "pull", ({"t": everything + 1}, None, False, False))), 20)


def test_no_pull_is_torn_while_a_writer_goes_at_full_speed() -> None:
    """Every version k of the shard holds k in all its places: a mixture is seen at once."""
    n = 1_000_000
    memory, lock, over = SharedMemory(n), threading.Lock(), threading.Event()
    layout = Layout(dense=(Dense("w", (n,)),))
    shard = Shard(layout, 0, OptimizerOptions(name="sgd", arguments={"lr": 1.0}), 1, memory=memory)
    server = LocalServer(shard, memory, lock, lambda seconds: None)
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
        link = LocalLink(server.address, Gradients())
        into, version, seen = Landing(np.zeros(n, np.float32), None), None, 0
        while seen < 40:
            reply = link.receive(link.send(Call(0, "pull", (None, version, False, False), into)), 20)
            if reply.dense is not None:
                assert version is None or reply.version > version
                assert into.dense.min() == into.dense.max(), "torn"
                assert abs(into.dense[0] - reply.version.counter) < 0.5
                version, seen = reply.version, seen + 1
    finally:
        over.set()
        writer.join()


def test_a_copy_that_met_a_change_says_so() -> None:
    memory = SharedMemory(4)
    values = memory.zeros(4)
    view = SharedView(Segment(memory.segment.read_only(), memory.segment.nbytes, writable=False), 4)
    into = np.empty(4, np.float32)
    memory.begin()
    assert view.copy(None, into, None) is None
    values[:] = 3
    memory.end(Version(1, 7))
    assert view.copy(None, into, None) == (Version(1, 7), True)
    assert into.tolist() == [3, 3, 3, 3]
    assert view.copy(Version(1, 7), into, None) == (Version(1, 7), False)


def test_a_pull_gets_through_where_every_free_copy_is_torn(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = iter(range(ATTEMPTS))
    real = SharedView.copy
    monkeypatch.setattr(SharedView, "copy", lambda *a: None if next(torn, None) is not None else real(*a))
    pulled = pair.pull()
    assert pulled.version == Version(9, 4)
    np.testing.assert_array_equal(pulled.dense, pair.start["dense"])


def test_a_worker_can_not_write_to_the_shard_s_memory(pair: Pair) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pair.link._view._arena[0] = 1.0
    fd = pair.memory.segment.read_only()
    try:
        with pytest.raises(OSError):
            os.write(fd, b"x")
    finally:
        os.close(fd)
    assert os.fstat(pair.memory.segment.fd).st_mode & 0o777 == 0o600


def test_nothing_is_left_of_a_segment_when_its_holders_are_gone() -> None:
    def held() -> int:
        return sum("psdevise-test" in line for line in Path("/proc/self/maps").read_text().splitlines())

    gc.collect()
    before, files = held(), set(os.listdir("/dev/shm"))
    segments = [Segment.create(4096, "test") for _ in range(3)]
    assert held() == before + 3
    assert set(os.listdir("/dev/shm")) == files, "they have no name that could stay behind"
    del segments
    gc.collect()
    assert held() == before


def test_a_dead_server_is_a_lost_shard_and_a_silent_one_a_deadline(pair: Pair) -> None:
    with pair.lock:  # somebody keeps the shard
        ticket = pair.link.send(Call(0, "answer", (Identity(0, 1, 0, 0),)))
        assert not pair.link.ready(ticket)
        with pytest.raises(DeadlineExceeded):
            pair.link.receive(ticket, 0.05)
    assert pair.link.receive(ticket, 10) is None
    pair.link._connection.close()
    with pytest.raises(ShardLost):
        pair.link.receive(pair.link.send(Call(0, "answer", (Identity(0, 1, 0, 0),))), 10)


def test_a_shard_is_found_again_after_there_were_too_many_open_files(pair: Pair) -> None:
    class Full:
        failed, listener = 0, pair.server._listener

        def accept(self) -> object:
            self.failed += 1
            if self.failed < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

    full = Full()
    pair.server._listener = full  # type: ignore[assignment]
    for _ in range(2):  # the first still meets the call of `accept` that was under way
        link = LocalLink(pair.server.address, pair.gradients, 5)
        assert link.receive(link.send(Call(0, "answer", (Identity(0, 1, 0, 0),))), 5) is None
    assert full.failed >= 3


def test_more_memory_than_there_is_is_a_clear_error() -> None:
    with pytest.raises(ResourceError, match="shared memory"):
        Segment.create(1 << 60, "test")
