"""What was raised inside an actor, and what is said of one that is gone."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from psdevise.errors import DeadlineExceeded, PsdeviseError, WorkerLost


def from_coordinator(ref: Any, deadline: float, where: str = "coordinator") -> Any:
    """The coordinator's answer.

    Raises:
        DeadlineExceeded: it took longer than `deadline` seconds.
        WorkerLost: its process is gone.
    """
    try:
        return ray.get(ref, timeout=deadline)
    except GetTimeoutError as e:
        raise DeadlineExceeded(f"no answer within {deadline:g} s", where=where, mend="raise downpour.deadline") from e
    except RayTaskError as e:
        raise cause(e) from e
    except RayError as e:
        mend = "give the same command again: it goes on from the last snapshot"
        raise WorkerLost(f"its process is gone: {brief(e)}", where=where, mend=mend) from e


def brief(error: Exception) -> str:
    """The first line of what Ray says, which is long."""
    return str(error).splitlines()[0]


def cause(error: RayError) -> Exception:
    """What was raised inside the actor, where it is one of ours; else Ray's own error."""
    found = getattr(error, "cause", None)
    while found is not None and not isinstance(found, PsdeviseError):
        found = getattr(found, "cause", None) or found.__cause__
    return found if isinstance(found, PsdeviseError) else error
