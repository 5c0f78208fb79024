"""Identical frozen features for all systems on one class split: unsupervised, fitted on pictures that may be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.data import features
from psdevise.data.pictures import Columns, PictureTable, decode
from psdevise.labels.split import Split
from psdevise.models.single_layer import SingleLayerOptions, Standard, fit

OnProgress = Callable[[int, int, str], None]
READ = 1000


@dataclass(frozen=True)
class Pictures:
    """uint8 [n, 32, 32, 3], each one's label, and its place in the table."""

    pixels: npt.NDArray[np.uint8]
    labels: list[str]

    @property
    def rows(self) -> int:
        return len(self.labels)

    def pick(self, rows: Sequence[int]) -> Pictures:
        return Pictures(self.pixels[list(rows)], [self.labels[r] for r in rows])

    def of(self, classes: Sequence[str], per_class: int | None = None) -> Pictures:
        """Those of some classes; of each the first `per_class`."""
        left = dict.fromkeys(classes, self.rows if per_class is None else per_class)
        kept = []
        for row, label in enumerate(self.labels):
            if left.get(label, 0):
                left[label] -= 1
                kept.append(row)
        return self.pick(kept)


def read_pictures(path: str, on_progress: OnProgress) -> Pictures:
    """All pictures of a CIFAR table, decoded."""
    table = PictureTable(path, Columns(id="filename", labels="label"))
    pixels = np.empty((table.rows, 32, 32, 3), np.uint8)
    labels: list[str] = []
    for start in range(0, table.rows, READ):
        for picture in table.read(start, min(start + READ, table.rows)):
            pixels[picture.row] = decode(picture.data, 32)
            labels.append(picture.labels[0])
        on_progress(len(labels), table.rows, f"reading {path.rsplit('/', 1)[-1]}")
    return Pictures(pixels, labels)


@dataclass(frozen=True)
class Frozen:
    """Feature files of one split: `train` and `validation` of seen classes, `test` of all."""

    train: str
    validation: str
    test: str


def compute(
    folder: str,
    split: Split,
    tune: Sequence[str],
    pictures: tuple[Pictures, Pictures, Pictures],
    options: SingleLayerOptions,
    seed: int,
    on_progress: OnProgress,
) -> Frozen:
    """Writes the features of (training, validation, test) pictures, unless they are there.

    Patches, dictionary and standardisation come from training pictures of the seen classes without the tuning ones, so
    that the same features serve the systems that are trained without these to choose the calibration bias.
    """
    names = ("train", "validation", "test")
    found = Frozen(*(store.join(folder, f"{name}.parquet") for name in names))
    if all(store.exists(path) for path in (found.train, found.validation, found.test)):
        return found
    train = pictures[0].of(split.seen)
    base = train.of([c for c in split.seen if c not in set(tune)])
    on_progress(0, 1, f"{split.name}: dictionary")
    layer = fit(base.pixels, options, np.random.default_rng([seed, 41]))

    def codes(name: str, part: Pictures) -> npt.NDArray[np.float32]:
        what = f"{split.name}: features of {name}"
        return layer.codes(part.pixels, lambda done, of: on_progress(done, of, what))

    values = codes("train", train)
    allowed = set(base.labels)
    standard = Standard(values[[row for row, label in enumerate(train.labels) if label in allowed]])
    features.write_rows(found.train, standard(values), [[label] for label in train.labels])
    validation = pictures[1].of(split.seen)
    features.write_rows(
        found.validation, standard(codes("validation", validation)), [[label] for label in validation.labels]
    )
    features.write_rows(found.test, standard(codes("test", pictures[2])), [[label] for label in pictures[2].labels])
    return found
