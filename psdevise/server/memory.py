"""Where a shard's dense arrays lie. Here: plain memory. A host may put them where workers of the same machine can
read them without a call (`psdevise.runtime.segment`); then `begin` and `end` tell a reader when its copy is torn."""

from __future__ import annotations

import numpy as np

from psdevise.server.protocol import Array, Version


class Memory:
    def zeros(self, n: int) -> Array:
        """float32 zeros [n], for the arena first and for the accumulators second."""
        return np.zeros(n, np.float32)

    def begin(self) -> None:
        """From now until `end` the arrays change."""

    def end(self, version: Version) -> None:
        """The arrays are `version`, whole."""
