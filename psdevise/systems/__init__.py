"""What evaluation compares: each System scores pictures against any labels it can name.

A System has `name`, `variant` and `score(pictures, labels)`; evaluation knows only these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


class Named(Protocol):
    """`name` is one of DESIGN.md's system names, or the user's own."""

    @property
    def name(self) -> str: ...

    @property
    def variant(self) -> str: ...


class System(Named, Protocol):
    def score(self, pictures: Pictures, labels: Sequence[str]) -> Scores:
        """uint8 [n, size, size, 3] → float32 [n, len(labels)], higher is better; −inf for a label that
        the system cannot name."""
