"""What `psdevise simulate --calibrate` must know of this machine besides memcpy, Adagrad and a Ray call: what a push
costs on either side apart from its bytes, and how many cores the memory can feed.

    serve, message = (CPU with 4 shards − CPU with 1 shard) / 3, of the shards and of their one worker, a push and pull
    streams        = 2 · (time of a memcpy alone) / (time of each of two at once)

A push and a pull are followed by a pause, as in training by a gradient. There are so few parameters that moving and
stepping them takes nothing.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
import torch

from psdevise.bench import arithmetic
from psdevise.bench.table import Row
from psdevise.runtime.local import LocalServer
from psdevise.runtime.local_link import LocalLink
from psdevise.runtime.segment import Gradients, SharedMemory
from psdevise.server.layout import Dense, Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Gradient, Identity
from psdevise.server.shard import Shard
from psdevise.simulation.calibrate import MESSAGE, SERVE, STREAMS
from psdevise.worker.effects import Call

FLOATS, SHARDS = 64, 4
PUSHES, PAUSE_SECONDS, PATIENCE = 400, 0.02, 60.0
COPIED, COPY_SECONDS = 16 * 2**18, 1.0


def rows(benchmark: str, pushes: int = PUSHES) -> list[Row]:
    """Of case `machine`: CPU in milliseconds, and the streams of memory."""
    message, serve = per_shard(pushes)
    found = [(SERVE, "milliseconds", serve * 1e3, "ms"), (MESSAGE, "milliseconds", message * 1e3, "ms")]
    found.append((STREAMS, "cores", streams(), "1"))
    return [Row(benchmark, "machine", what, metric, v, v, v, unit) for what, metric, v, unit in found]


def streams(seconds: float = COPY_SECONDS) -> float:
    """From 1, where one core takes all that the memory gives, to 2."""
    alone, both = _together(_copy, 1, seconds), _together(_copy, 2, seconds)
    return float(np.clip(2 * alone[0] / np.mean(both), 1.0, 2.0))


def per_shard(pushes: int) -> tuple[float, float]:
    """CPU seconds that a further shard costs the worker, and that it uses itself, for a push and a pull."""
    one, many = _push(1, pushes), _push(SHARDS, pushes)
    return max(0.0, many[0] - one[0]) / (SHARDS - 1), max(0.0, many[1] - one[1]) / (SHARDS - 1)


def _push(shards: int, pushes: int) -> tuple[float, float]:
    """CPU seconds of this process and of the shards' for one push and one pull."""
    context = multiprocessing.get_context("spawn")
    layout = Layout(dense=(Dense("dense", (FLOATS * shards,)),), shards=shards)
    pipes = [context.Pipe() for _ in range(shards)]
    processes = [
        context.Process(target=_serve, args=(layout, i, there), daemon=True) for i, (_, there) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        gradients = Gradients()
        gradient = gradients.allocate(layout.size)
        gradient[:] = 1.0
        links = [LocalLink(_received(here), gradients) for here, _ in pipes]
        theirs = [psutil.Process(process.pid) for process in processes]

        def exchange(sequence: int) -> None:
            pulled = [
                link.receive(link.send(Call(i, "pull", (None, None, False, False))), PATIENCE) for i, link in each
            ]
            identity = Identity(0, 1, sequence, sequence)
            sent = [
                link.send(
                    Call(i, "push", (Gradient(gradient[slice(*layout.range(i))]), identity, p.version, 1.0, None))
                )
                for (i, link), p in zip(each, pulled, strict=True)
            ]
            for (_, link), ticket in zip(each, sent, strict=True):
                link.receive(ticket, PATIENCE)
            time.sleep(PAUSE_SECONDS)

        each = list(enumerate(links))
        exchange(0)
        mine, others = time.process_time(), _cpu(theirs)
        for sequence in range(1, pushes + 1):
            exchange(sequence)
        return (time.process_time() - mine) / pushes, (_cpu(theirs) - others) / pushes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(layout: Layout, index: int, there: Connection[Any, Any]) -> None:
    """A shard's process, without Ray."""
    torch.set_num_threads(1)
    start, stop = layout.range(index)
    memory = SharedMemory(stop - start)
    shard = Shard(layout, index, OptimizerOptions(), incarnation=1, memory=memory)
    there.send(LocalServer(shard, memory, threading.Lock(), lambda seconds: None).address)
    threading.Event().wait()


def _together(act: Callable[[Any, Any, float], None], n: int, seconds: float) -> list[float]:
    """What each of n processes found that did the same at the same time."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(n)
    pipes = [context.Pipe() for _ in range(n)]
    processes = [context.Process(target=act, args=(start, there, seconds), daemon=True) for _, there in pipes]
    for process in processes:
        process.start()
    try:
        return [float(_received(here)) for here, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _copy(start: Any, there: Connection[Any, Any], seconds: float) -> None:
    torch.set_num_threads(1)
    act, taken = arithmetic.memcpy(COPIED), []
    act()
    start.wait(PATIENCE)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begin)
    there.send(float(np.median(taken)))


def _received(here: Connection[Any, Any]) -> Any:
    if not here.poll(PATIENCE):
        raise TimeoutError(f"a process of the benchmark said nothing for {PATIENCE:g} s")
    return here.recv()


def _cpu(processes: list[psutil.Process]) -> float:
    return float(sum(sum(p.cpu_times()[:2]) for p in processes))
