"""A Ray actor as a value: for programs that drive a few of them by hand, as benchmarks do, and need not know Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.internal_api import node_stats


@dataclass(frozen=True)
class Answer:
    """What a method of an actor will return."""

    ref: Any

    @property
    def ready(self) -> bool:
        return bool(ray.wait([self.ref], timeout=0)[0])

    def get(self) -> Any:
        return ray.get(self.ref)


@dataclass(frozen=True)
class Actor:
    """An object in a process of its own; `handle` is Ray's."""

    handle: Any

    def begin(self, method: str, *arguments: Any) -> Answer:
        """Calls a method and does not wait for it."""
        return Answer(getattr(self.handle, method).remote(*arguments))

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method and returns its answer."""
        return self.begin(method, *arguments).get()

    def end(self) -> None:
        """Kills its process."""
        ray.kill(self.handle)


def spawn(cls: type, *arguments: Any, options: Mapping[str, Any] | None = None, **named: Any) -> Actor:
    """An actor that no CPU is set aside for. `options`: Ray's, such as its name or resources of the node it is to
    lie on."""
    return Actor(ray.remote(cls).options(num_cpus=0, **options or {}).remote(*arguments, **named))


def ask_all(actors: Sequence[Actor], method: str, *arguments: Any) -> list[Any]:
    """The answers of all, which work at the same time."""
    return [answer.get() for answer in [actor.begin(method, *arguments) for actor in actors]]


class Empty:
    """An actor that does nothing."""

    def nothing(self) -> None:
        """Returns at once."""

    def pid(self) -> int:
        return os.getpid()


def empty_call() -> Callable[[], object]:
    """The round trip of an empty call to an actor of this node."""
    actor = spawn(Empty)
    return lambda: actor.ask("nothing")


def worker_niceness() -> int:
    """That of Ray's workers here, which its version and configuration decide."""
    return int(ray.get(ray.remote(num_cpus=0)(lambda: os.nice(0)).remote()))


def object_store_bytes() -> int:
    """What Ray's object store of this node holds; 0 where Ray does not run."""
    if not ray.is_initialized():
        return 0
    (here,) = [n for n in ray.nodes() if n["NodeID"] == ray.get_runtime_context().get_node_id()]
    stats = node_stats(here["NodeManagerAddress"], here["NodeManagerPort"], include_memory_info=False)
    return int(stats.store_stats.object_store_bytes_used)
