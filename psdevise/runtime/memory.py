"""Peak memory of this process."""

from __future__ import annotations

import resource


def peak_bytes() -> float:
    """Peak resident memory so far, shared pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
