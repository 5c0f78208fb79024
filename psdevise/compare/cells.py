"""Finished parts of a comparison, a file each: the same command goes on where it was stopped."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.errors import ConfigError

Arrays = dict[str, npt.NDArray[Any]]


def content(folder: str, names: Sequence[str]) -> str:
    """A key of what files hold, wherever they lie: moved data go on with a comparison, other data do not.

    Raises:
        StoreError: a file is not there.
    """
    return store.key_of({name: store.sha256(store.join(folder, name)) for name in names})


class Cells:
    """
    Args:
        folder: of the comparison; another comparison's is refused.
        plan: what changes a cell's content (JSON-ready); `content` for files.

    Raises:
        ConfigError: cells of another plan lie there.
    """

    def __init__(self, folder: str, plan: dict[str, Any]) -> None:
        self.folder = folder
        path = store.join(folder, "plan.json")
        if store.exists(path) and (before := store.read_json(path)) != plan:
            differing = sorted(k for k in {*plan, *before} if plan.get(k) != before.get(k))
            raise ConfigError(
                f"this folder holds a comparison with another {', '.join(differing)}",
                where=folder,
                mend="give another --out, or remove the folder",
            )
        store.write_json(path, plan)

    def path(self, key: str) -> str:
        return store.join(self.folder, "cells", re.sub(r"[^\w.+-]+", "_", key) + ".npz")

    def has(self, key: str) -> bool:
        return store.exists(self.path(key))

    def write(self, key: str, arrays: Arrays) -> None:
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        store.write_bytes(self.path(key), file.getvalue())

    def read(self, key: str) -> Arrays:
        with np.load(io.BytesIO(store.read_bytes(self.path(key)))) as found:
            return {name: found[name] for name in found.files}
