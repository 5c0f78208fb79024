"""A folder as `cifar100/` is, of a dozen classes that are colours: small enough to compare systems in seconds."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from psdevise.labels.vectors import WordVectors

NAMES = tuple(f"kind {letter}" for letter in "abcdefghijkl")
UNSEEN = [list(NAMES[:3]), list(NAMES[3:6])]


def colours() -> np.ndarray:
    return np.random.default_rng(8).uniform(40, 215, (len(NAMES), 3))


def table(path: Path, per_class: int, seed: int, names: tuple[str, ...] = NAMES) -> None:
    """Pictures whose stripes have their class's colour and width."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in rng.permutation(per_class * len(names)):
        kind = int(number) % len(names)
        stripes = (np.arange(32) // (2 + kind % 4)) % 2
        pixels = np.zeros((32, 32, 3)) + colours()[kind]
        pixels[:, stripes == 1] = 255 - colours()[kind]
        pixels = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        rows.append({"filename": f"{number}.png", "image": file.getvalue(), "label": names[kind]})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)


def make(folder: Path) -> Path:
    """folder/cifar100 with pictures, labels, hierarchy and splits."""
    home = folder / "cifar100"
    table(home / "train.parquet", 20, 0)
    table(home / "test.parquet", 6, 1)
    lines = [f"{name}\tn{i:08d}\t{name}" for i, name in enumerate(NAMES)]
    (home / "wordnet.tsv").write_text("\n".join(["label\twnid\tterms", *lines]) + "\n")
    edges = [f"n{i:08d}\tg{i % 4}\tis" for i in range(len(NAMES))] + [f"g{i}\troot\tis" for i in range(4)]
    (home / "is_a.tsv").write_text("\n".join(["child\tparent\trelation", *edges]) + "\n")
    (home / "splits.json").write_text(json.dumps({"one_per_superclass": UNSEEN, "random_20": UNSEEN[::-1]}))
    (home / "unseen_20.txt").write_text("\n".join(UNSEEN[0]) + "\n")
    (home / "tune_10.txt").write_text("\n".join(NAMES[9:]) + "\n")
    return folder


def words(seed: int = 0, dim: int = 6) -> WordVectors:
    """Vectors that know the colours."""
    through = np.random.default_rng(seed).standard_normal((3, dim))
    matrix = ((colours() - 128) / 64) @ through + 0.05 * np.random.default_rng(1).standard_normal((len(NAMES), dim))
    return WordVectors(NAMES, matrix.astype(np.float32))
