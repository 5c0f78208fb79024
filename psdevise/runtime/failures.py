"""What was raised inside an actor."""

from __future__ import annotations

from ray.exceptions import RayError

from psdevise.errors import PsdeviseError


def cause(error: RayError) -> Exception:
    """What was raised inside the actor, where it is one of ours; else Ray's own error."""
    found = getattr(error, "cause", None)
    while found is not None and not isinstance(found, PsdeviseError):
        found = getattr(found, "cause", None) or found.__cause__
    return found if isinstance(found, PsdeviseError) else error
