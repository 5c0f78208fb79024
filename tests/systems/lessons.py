"""A small lesson that linear systems can learn: pictures near their label's vector through a random map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from psdevise.compare.training import trainer
from psdevise.data.features import Features, write
from psdevise.systems.recipe import Known, Lesson

SEEN = ("ant", "bee", "cat", "dog", "elk", "fox")
UNSEEN = ("gnu", "hen")
DIM, WIDTH = 5, 12


def known(seed: int = 0) -> Known:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((8, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Known(SEEN, dict(zip((*SEEN, *UNSEEN), vectors, strict=True)), seed)


def pictures(labels: list[str], seed: int, noise: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    through = np.random.default_rng(2).standard_normal((DIM, WIDTH))
    values = known().matrix(labels) @ through + noise * rng.standard_normal((len(labels), WIDTH))
    return values.astype(np.float32)


def lesson(folder: Path, n: int = 360) -> Lesson:
    labels = [SEEN[i % len(SEEN)] for i in range(n)]
    values = pictures(labels, 3)
    path = str(folder / "train.parquet")
    write(path, [Features([str(i) for i in range(n)], values, [(label,) for label in labels])], WIDTH)
    return Lesson(known(), path, str(folder), trainer(0))
