"""Functions as machine code, by numba; whoever imports this imports a compiler: a second, and 35 MB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

C = TypeVar("C", bound=Callable[..., Any])


def compiled(function: C, **options: Any) -> C:
    """Compiled when it is first called, and kept beside its file or in the user's cache folder (`NUMBA_CACHE_DIR` names
    another); where neither can be written, compiled anew in each process.

    Args:
        options: of `numba.njit`.
    """
    try:
        kept: C = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep it
        kept = numba.njit(**options)(function)
    return kept
