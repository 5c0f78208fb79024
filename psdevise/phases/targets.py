"""What a projected picture is compared with in training: the terms of each class, and perhaps the lexicon's others.

A class may have several terms; a batch is trained on one of each, drawn anew (Frome et al. 2013, footnote 4). Terms of
the lexicon that name no class of training may stand beside them as further false terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from torch import Tensor

from psdevise import store

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """
    Attributes:
        vectors: float32 [terms, E], unit rows.
        owner: the class of each term [terms], every class from 0 on at least once; None: one term a class, in order.
        lexicon: float32 [L, E]: terms that are false for every picture.
    """

    vectors: Floats
    owner: Ints | None = None
    lexicon: Floats | None = None

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def draw(self, rng: np.random.Generator) -> Tensor:
        """One term of each class, uniformly, and behind them the lexicon: [C + L, E]."""
        chosen = self.vectors if self.owner is None else self.vectors[one_each(self.owner, rng)]
        return torch.from_numpy(chosen if self.lexicon is None else np.concatenate([chosen, self.lexicon]))

    def write(self, path: str) -> None:
        parts = {"vectors": self.vectors, "owner": self.owner, "lexicon": self.lexicon}
        held = {name: np.ascontiguousarray(part) for name, part in parts.items() if part is not None}
        store.write_bytes(path, save_safetensors(held))

    @staticmethod
    def read(path: str) -> Targets:
        return Targets(**load_safetensors(store.read_bytes(path)))


def one_each(owner: Ints, rng: np.random.Generator) -> Ints:
    """A row of each owner, uniformly among its rows [max(owner) + 1]."""
    order = rng.permutation(len(owner))
    chosen = np.empty(int(owner.max()) + 1, np.int64)
    chosen[owner[order]] = order  # of several the last one stays: in a random order, any of them
    return chosen


def widen(true: Tensor, columns: int) -> Tensor:
    """true [B, C] → [B, columns], nothing true behind C."""
    return torch.nn.functional.pad(true, (0, columns - true.shape[1]))
