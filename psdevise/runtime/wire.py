"""A worker's calls to its shards, each by the shortest way there is: shared memory on the same machine (`local`), a
TCP stream to another (`remote`), Ray where there is neither. Where a restarted shard is, the coordinator knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayError, RayTaskError

from psdevise import errors
from psdevise.monitor.logs import logger
from psdevise.runtime.failures import brief, from_coordinator
from psdevise.runtime.local_link import LocalLink
from psdevise.runtime.remote import RemoteLink
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
            raise ShardLost(brief(e)) from e


class Wire:
    """
    Args:
        coordinator: the actor that knows the shards' names and hosts.
        gradients: the worker's memory for gradients on their way.
        deadline: seconds that any one answer may take.
        who: the worker and its host, for errors.
    """

    def __init__(
        self, coordinator: Any, namespace: str, gradients: Gradients | None, deadline: float, who: str = ""
    ) -> None:
        self._coordinator, self._namespace, self._deadline = coordinator, namespace, deadline
        self._gradients, self._who = gradients, who
        self._shards: list[tuple[str, str]] = self._where()
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
            return errors.DeadlineExceeded(e.what, where=self._called(shard), mend=e.mend)

    def _lost(self, shard: int, link: Link | None, error: ShardLost) -> ShardLost:
        if self._links.get(shard) is link:
            self._links.pop(shard, None)
        return ShardLost(error.what, where=self._called(shard))

    def _called(self, shard: int) -> str:
        asked_by = f", asked by {self._who}" if self._who else ""
        return " on ".join(filter(None, self._shards[shard])) + asked_by

    def _where(self) -> list[tuple[str, str]]:
        return list(from_coordinator(self._coordinator.shards.remote(), self._deadline))

    def _link(self, shard: int) -> Link:
        if shard not in self._links:
            self._links[shard] = self._connect(shard)
        return self._links[shard]

    def _connect(self, shard: int) -> Link:
        self._shards = self._where()
        try:
            handle = ray.get_actor(self._shards[shard][0], self._namespace)
            link = self._in_memory(handle) or self._by_stream(handle) or RayLink(handle)
        except (ValueError, RayError) as e:
            raise ShardLost(brief(e)) from e
        logger.info("shard %d on %s: by %s", shard, self._shards[shard][1], type(link).__name__)
        return link

    def _in_memory(self, handle: Any) -> Link | None:
        address = ray.get(handle.address.remote(), timeout=self._deadline)
        if address is None or self._gradients is None:
            return None
        try:
            return LocalLink(address, self._gradients, self._deadline)
        except (ConnectionRefusedError, EOFError):  # it is on another machine, or not ours to use
            return None
        except (OSError, errors.BadMessage) as e:
            raise ShardLost(f"it does not speak: {e}") from e

    def _by_stream(self, handle: Any) -> Link | None:
        address = ray.get(handle.listen.remote(), timeout=self._deadline)
        if address is None:
            return None
        try:
            return RemoteLink(address, _death(handle))
        except (OSError, EOFError) as e:
            logger.warning("no TCP stream to %s port %d, so all goes through Ray: %s", *address[:2], e)
            return None


def _death(handle: Any) -> Callable[[], str]:
    """Tells why Ray takes an actor for dead, and nothing while it does not; never waits."""
    asked: list[Any] = []

    def lost() -> str:
        if not asked:
            asked.append(handle.address.remote())
        if ray.wait(asked, timeout=0)[0]:
            try:
                ray.get(asked.pop())
            except ActorDiedError as e:
                return brief(e)
            except RayError:  # it cannot be reached just now
                pass
        return ""

    return lost
