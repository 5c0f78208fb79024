"""Pull and push between two hosts, beside a plain TCP stream and Ray's object store: a case of `psdevise bench wire`.

The hosts are network namespaces (`namespaces`): a worker's endpoint on one, with this program, and on the other a shard
and the peer that it is compared with. All three cross the same bridge, and each call is answered before the next.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from psdevise import store
from psdevise.bench import arithmetic
from psdevise.bench.endpoint import NAMESPACE, Endpoint, Server
from psdevise.bench.namespaces import Hosts, address
from psdevise.bench.nodes import HEAD, Nodes
from psdevise.bench.rounds import Rounds, paired
from psdevise.bench.table import Context, Row, to_plain
from psdevise.errors import BenchmarkFailed
from psdevise.runtime.actor import Actor, spawn
from psdevise.runtime.cluster import connect, disconnect
from psdevise.runtime.job import ClusterOptions

MEGABYTES = (0.1, 1.0, 4.0, 16.0, 64.0, 256.0)
ROUNDS = 15
OBJECT_STORE = 1_500_000_000
SECONDS = 600.0
FAR_HOST = 2
# Run on the first host with FOLDER MEGABYTES ROUNDS (`main`). An actor's class must lie in a module to be imported.
PROGRAM = (sys.executable, "-c", "import sys; from psdevise.bench.between import main; main(*sys.argv[1:])")
REQUEST = struct.Struct("<cQ")
FAR = {"far": 1e-3}  # Ray's resource of the second host
Floats = npt.NDArray[np.float32]


def run(context: Context) -> list[Row]:
    """The rows, or none where hosts cannot be made (`namespaces.missing` tells why)."""
    with Hosts(FAR_HOST, memory="2g") as hosts:
        nodes = Nodes(hosts, OBJECT_STORE, {"RAY_worker_niceness": "0"})
        nodes.join(FAR_HOST, resource="far")
        nodes.ready()
        rows: list[Row] = []
        for i, megabytes in enumerate(MEGABYTES):
            context.on_progress(i, len(MEGABYTES), case_of(megabytes))
            done = hosts.run(1, [*PROGRAM, str(hosts.shared), str(megabytes), str(ROUNDS)], nodes.environment, SECONDS)
            if done.returncode != 0:
                logs = [done.stdout, *(path.read_text() for path in hosts.shared.glob("*.log"))]
                raise BenchmarkFailed("\n".join(log[-2000:] for log in logs), where=f"bench wire, {case_of(megabytes)}")
            rows += [Row(**row) for row in json.loads((hosts.shared / "rows.json").read_text())]
        return rows


def case_of(megabytes: float) -> str:
    return f"{megabytes:g} MB between hosts"


def dense(megabytes: float, folder: str, rounds: int = ROUNDS) -> list[Row]:
    """Bandwidth of pulls and of pushes; a push counts when it is checked and applied, as between processes."""
    size = max(1, int(megabytes * 1e6 / 4))
    repeats = max(1, min(20, int(20 / megabytes)))
    server = Server(size, 1, folder, resources=FAR)
    endpoint = Endpoint(server.layout, server.coordinator)
    peer = spawn(Peer, size, address(FAR_HOST), options={"resources": FAR})
    plain, store_ = Plain(peer.ask("address"), size), ThroughRay(peer, size)
    torn = pushes = 0

    def ours(which: int) -> float:
        """The median time of a push (0) or of the pull behind it (1)."""
        nonlocal torn, pushes
        taken = []
        for _ in range(repeats):
            taken.append((endpoint.push(), endpoint.pull())[which])
            torn += endpoint.torn()
            pushes += 1
        return float(np.median(taken))

    acts: dict[str, Callable[[], float]] = {
        "push psdevise": lambda: ours(0),
        "pull psdevise": lambda: ours(1),
        "push tcp": lambda: arithmetic.seconds(plain.push, repeats),
        "pull tcp": lambda: arithmetic.seconds(plain.pull, repeats),
        "push ray.get": lambda: arithmetic.seconds(store_.push, repeats),
        "pull ray.get": lambda: arithmetic.seconds(store_.pull, repeats),
    }
    for act in acts.values():  # first calls, first pages
        act()
    found = paired({name: lambda n, act=act: act() for name, act in acts.items()}, rounds).values  # type: ignore[misc]
    errors = torn + abs(pushes - server.counts("applied")) + plain.wrong + store_.wrong
    server.end()
    peer.end()
    rows: list[Row] = []
    for what in ("pull", "push"):
        speeds: Mapping[str, list[float]] = {
            name.partition(" ")[2]: [megabytes / s for s in seconds]
            for name, seconds in found.items()
            if name.startswith(what)
        }
        rows += Rounds(speeds, {"psdevise": errors}).rows(
            "wire", case_of(megabytes), f"{what}_bandwidth", "MB/s", "tcp"
        )
    return rows


class Peer:
    """On the other host: a plain TCP stream's other end, and what Ray's object store brings and takes."""

    def __init__(self, size: int, host: str) -> None:
        self._memory = np.ones(size, np.float32)
        self._listener = socket.create_server((host, 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def address(self) -> tuple[str, int]:
        found: tuple[str, int] = self._listener.getsockname()
        return found

    def give(self) -> Floats:
        return self._memory

    def take(self, gradient: Floats) -> int:
        return gradient.nbytes

    def _serve(self) -> None:
        connected, _ = self._listener.accept()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        landing, memory = np.empty_like(self._memory).data.cast("B"), self._memory.data.cast("B")
        request = memoryview(bytearray(REQUEST.size))
        while True:
            exactly(connected, request)
            kind, _ = REQUEST.unpack(request)
            if kind == b"<":
                connected.sendall(memory)
            else:
                exactly(connected, landing)
                connected.sendall(b"!")


class Plain:
    """A TCP stream, and nothing else: no check, no copy, no update.

    Attributes:
        wrong: pulls that did not bring what the other end has.
    """

    def __init__(self, peer: tuple[str, int], size: int) -> None:
        self._connected = socket.create_connection(peer)
        self._connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._floats, self._gradient = np.zeros(size, np.float32), np.ones(size, np.float32)
        self._answer = memoryview(bytearray(1))
        self.wrong = 0

    def pull(self) -> None:
        self._connected.sendall(REQUEST.pack(b"<", self._floats.nbytes))
        exactly(self._connected, self._floats.data.cast("B"))
        self.wrong += int(self._floats[-1] != 1)

    def push(self) -> None:
        self._connected.sendall(REQUEST.pack(b">", self._gradient.nbytes))
        self._connected.sendall(self._gradient.data.cast("B"))
        exactly(self._connected, self._answer)


class ThroughRay:
    """An actor's value, copied to memory that may be written; and an argument of its method."""

    def __init__(self, peer: Actor, size: int) -> None:
        self._peer = peer
        self._floats, self._gradient = np.zeros(size, np.float32), np.ones(size, np.float32)
        self.wrong = 0

    def pull(self) -> None:
        np.copyto(self._floats, self._peer.ask("give"))
        self.wrong += int(self._floats[-1] != 1)

    def push(self) -> None:
        self.wrong += int(self._peer.ask("take", self._gradient) != self._gradient.nbytes)


def exactly(connected: socket.socket, into: memoryview) -> None:
    done = 0
    while done < into.nbytes:
        got = connected.recv_into(into[done:], 0, socket.MSG_WAITALL)
        if not got:
            raise EOFError
        done += got


def main(folder: str, megabytes: str, rounds: str) -> None:
    """Measures one size and writes `rows.json` into the folder that both hosts see."""
    torch.set_num_threads(1)
    connect(ClusterOptions(address=HEAD), NAMESPACE)
    try:
        rows = dense(float(megabytes), store.join(folder, "start"), int(rounds))
    finally:
        disconnect()
    store.write_json(store.join(folder, "rows.json"), to_plain(rows))
