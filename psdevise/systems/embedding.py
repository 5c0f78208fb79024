"""Systems that compare a picture with label vectors: DeViSE, its random-embedding baseline, its L2 control.

    score(picture, label) = M v · t / (‖M v‖ ‖t‖)

The picture's own norm does not change an order of labels; it is divided out so that scores can be compared
between pictures (`predict --min-score`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from psdevise.errors import LabelError
from psdevise.models.core import CoreOptions, normalise
from psdevise.models.devise import DeViSE
from psdevise.systems import Pictures, Scores

BATCH = 256


class EmbeddingSystem:
    """
    Args:
        vectors: label → unit vector float32 [dim], or several [terms, dim], of which the best one counts.
    """

    def __init__(
        self,
        name: str,
        module: DeViSE,
        core: CoreOptions,
        vectors: Mapping[str, npt.NDArray[np.float32]],
        variant: str = "default",
    ) -> None:
        self.name, self.variant = name, variant
        self._module = module.eval()
        self._core = core
        self._vectors = vectors

    def embed(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        """Unit vectors float32 [n, dim] of pictures uint8 [n, size, size, 3]."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                projected = self._module(normalise(pictures[start : start + BATCH], self._core))
                parts.append(torch.nn.functional.normalize(projected.float(), dim=1).numpy())
        dim = self._module.projection.out_features
        return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)

    def label_matrix(self, labels: Sequence[str]) -> npt.NDArray[np.float32]:
        """The labels' unit vectors, float32 [len(labels), dim]; of several the first.

        Raises:
            LabelError: one of them has no vector.
        """
        return np.stack([rows[0] for rows in self._terms(labels)])

    def score(self, pictures: Pictures, labels: Sequence[str]) -> Scores:
        terms = self._terms(labels)
        starts = np.cumsum([0, *map(len, terms[:-1])])
        matrix = np.concatenate(terms)
        if len(matrix) == len(labels):
            return self.embed(pictures) @ matrix.T
        # A term of several labels is multiplied once, so that they tie exactly where it is their best one.
        distinct, place = np.unique(matrix, axis=0, return_inverse=True)
        return np.maximum.reduceat((self.embed(pictures) @ distinct.T)[:, place.reshape(-1)], starts, axis=1)

    def _terms(self, labels: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """[terms, dim] of each label."""
        missing = [name for name in labels if name not in self._vectors]
        if missing:
            raise LabelError(f"no vector for {', '.join(map(repr, missing[:5]))}", where=self.name)
        return [np.atleast_2d(self._vectors[name]) for name in labels]
