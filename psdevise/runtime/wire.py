"""A worker's calls to its shards, each by the shortest way there is: shared memory on the same machine (`local`), a
Ray call to another. Where a shard was restarted, the coordinator knows its new name."""

from __future__ import annotations

from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from psdevise import errors
from psdevise.runtime.failures import from_coordinator
from psdevise.runtime.local import LocalLink
from psdevise.runtime.segment import Gradients
from psdevise.worker.effects import Call, ShardLost


class Link(Protocol):
    """The way to one life of one shard. What the shard raises on purpose is a reply.

    Raises:
        ShardLost: that life is over, or cannot be reached.
    """

    def send(self, call: Call) -> Any: ...

    def ready(self, ticket: Any) -> bool: ...

    def receive(self, ticket: Any, deadline: float) -> Any: ...


class RayLink:
    """Calls of the shard's actor, through Ray's object store where they are large."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def send(self, call: Call) -> Any:
        try:
            return self._handle.call.remote(call.method, *call.arguments)
        except (ValueError, RayActorError) as e:
            raise ShardLost(str(e)) from e

    def ready(self, ticket: Any) -> bool:
        return bool(ray.wait([ticket], timeout=0)[0])

    def receive(self, ticket: Any, deadline: float) -> Any:
        try:
            return ray.get(ticket, timeout=deadline)
        except GetTimeoutError as e:
            raise errors.DeadlineExceeded(f"no answer within {deadline:g} s", mend="raise downpour.deadline") from e
        except RayTaskError as e:
            raise e.as_instanceof_cause() from e
        except RayError as e:
            raise ShardLost(str(e).splitlines()[0]) from e


class Wire:
    """
    Args:
        coordinator: the actor that knows the shards' names.
        gradients: the worker's memory for gradients on their way.
        deadline: seconds that any one answer may take.
    """

    def __init__(self, coordinator: Any, namespace: str, gradients: Gradients | None, deadline: float) -> None:
        self._coordinator, self._namespace, self._deadline = coordinator, namespace, deadline
        self._gradients = gradients
        self._names: list[str] = from_coordinator(coordinator.shards.remote(), deadline)
        self._links: dict[int, Link] = {}

    def send(self, calls: tuple[Call, ...]) -> list[Any]:
        """A ticket: for each call its shard, the link it took and what that link returned, or the loss."""
        return [self._send(call) for call in calls]

    def ready(self, ticket: list[Any]) -> bool:
        return all(link is None or link.ready(part) for _, link, part in ticket)

    def receive(self, ticket: list[Any]) -> list[Any]:
        return [self._receive(*part) for part in ticket]

    def _send(self, call: Call) -> tuple[int, Link | None, Any]:
        link = None
        try:
            link = self._link(call.shard)
            return call.shard, link, link.send(call)
        except ShardLost as e:
            return call.shard, None, self._lost(call.shard, link, e)

    def _receive(self, shard: int, link: Link | None, part: Any) -> Any:
        if link is None:
            return part
        try:
            return link.receive(part, self._deadline)
        except ShardLost as e:
            return self._lost(shard, link, e)
        except errors.DeadlineExceeded as e:
            return errors.DeadlineExceeded(e.what, where=self._names[shard], mend=e.mend)

    def _lost(self, shard: int, link: Link | None, error: ShardLost) -> ShardLost:
        if self._links.get(shard) is link:
            self._links.pop(shard, None)
        return ShardLost(error.what, where=self._names[shard])

    def _link(self, shard: int) -> Link:
        if shard not in self._links:
            self._links[shard] = self._connect(shard)
        return self._links[shard]

    def _connect(self, shard: int) -> Link:
        self._names = from_coordinator(self._coordinator.shards.remote(), self._deadline)
        try:
            handle = ray.get_actor(self._names[shard], self._namespace)
            address: Any = ray.get(handle.address.remote(), timeout=self._deadline)
        except (ValueError, RayError) as e:
            raise ShardLost(str(e).splitlines()[0]) from e
        if address is not None and self._gradients is not None:
            try:
                return LocalLink(address, self._gradients, self._deadline)
            except (ConnectionRefusedError, EOFError):  # it is on another machine, or not ours to use
                pass
            except (OSError, errors.BadMessage) as e:
                raise ShardLost(f"it does not speak: {e}") from e
        return RayLink(handle)
