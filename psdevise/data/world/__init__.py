"""A small drawn world: pictures and text of kinds of thing, made from a seed, for a run without any files.

Each kind has latent traits (`kinds`). A trait shapes, independently and with noise, the look of the kind
(`drawing`) and the contexts of its word (`telling`); the text has no word of colour, shape, texture or
picture. What a picture of an unseen kind is called can be found only through the traits that both share.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from psdevise import store
from psdevise.config import option
from psdevise.data.world.drawing import draw
from psdevise.data.world.kinds import Kind, kinds
from psdevise.data.world.telling import SPOKEN, tell


@dataclass(frozen=True)
class WorldOptions:
    seed: int = option(0, "seed of kinds, pictures and text", low=0)
    parents: int = option(14, "parents in the is-a tree; each has four kinds, one of them unseen", low=4, high=16)
    train_pictures: int = option(150, "training pictures of each kind", low=1)
    test_pictures: int = option(40, "test pictures of each kind", low=1)
    size: int = option(32, "side of the pictures in pixels", low=16)
    look_noise: float = option(0.12, "share of the looks in a picture that are of another trait", low=0.0, high=1.0)
    sentences: int = option(450, "sentences about each kind", low=1)
    text_noise: float = option(0.25, "share of the words about a trait that are of another one", low=0.0, high=1.0)


SCHEMA = pa.schema([("id", pa.string()), ("image", pa.binary()), ("labels", pa.list_(pa.string()))])
FILES = {
    "train": "train.parquet",
    "test": "test.parquet",
    "text": "text.txt",
    "is_a": "is_a.tsv",
    "labels": "labels.tsv",
    "unseen": "unseen.txt",
    "tune": "tune.txt",
}


def build(options: WorldOptions, folder: str, on_progress: Callable[[int, int], None]) -> dict[str, str]:
    """Writes the world's files into `folder`: name (as in FILES) → path. The same options give the same bytes."""
    rng = np.random.default_rng([options.seed, 1])
    world = kinds(options.parents, rng, SPOKEN)
    paths = {name: store.join(folder, file) for name, file in FILES.items()}
    total = len(world) * (options.train_pictures + options.test_pictures)
    done = 0
    for part, number, each in (("train", 2, options.train_pictures), ("test", 3, options.test_pictures)):
        rows = []
        part_rng = np.random.default_rng([options.seed, number])
        for kind in world:
            for i in range(each):
                rows.append(
                    (
                        f"{part}-{kind.name.replace(' ', '_')}-{i:04d}",
                        _picture(kind, options, part_rng),
                        [kind.name],
                    )
                )
            done += each
            on_progress(done, total)
        _write_table(paths[part], [rows[i] for i in part_rng.permutation(len(rows))])
    sentences = tell(world, options.sentences, options.text_noise, np.random.default_rng([options.seed, 4]))
    store.write_text(paths["text"], "\n".join(sentences) + "\n")
    _write_labels(paths, world)
    return paths


def _picture(kind: Kind, options: WorldOptions, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw(kind, options.size, options.look_noise, rng)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _write_table(path: str, rows: list[tuple[str, bytes, list[str]]]) -> None:
    ids, images, labels = zip(*rows, strict=True)
    table = pa.Table.from_arrays(
        [pa.array(ids), pa.array(images, pa.binary()), pa.array(labels, pa.list_(pa.string()))], schema=SCHEMA
    )
    store.write_atomic(path, lambda f: pq.write_table(table, f, row_group_size=500, compression="none"))


def _write_labels(paths: dict[str, str], world: list[Kind]) -> None:
    edges = (
        {(k.node, k.parent) for k in world} | {(k.parent, k.realm) for k in world} | {(k.realm, "w0000") for k in world}
    )
    lines = ["child\tparent\trelation", *(f"{c}\t{p}\thypernym" for c, p in sorted(edges))]
    store.write_text(paths["is_a"], "\n".join(lines) + "\n")
    table = ["label\twnid\tterms", *(f"{k.name}\t{k.node}\t{k.name}" for k in world)]
    store.write_text(paths["labels"], "\n".join(table) + "\n")
    store.write_text(paths["unseen"], "".join(f"{k.name}\n" for k in world if k.unseen))
    tune = [k.name for k in world if k.tune]
    store.write_text(paths["tune"], "".join(f"{name}\n" for name in tune))
