"""The pictures of `psdevise compare labels`: what is on each, by condition, and their features as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.compare import annotations as labelling
from psdevise.compare.annotations import Rows
from psdevise.compare.frozen import OnProgress, read_pictures
from psdevise.compare.splits import home
from psdevise.data import features
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace, read_list
from psdevise.models.single_layer import SingleLayerOptions, Standard, fit
from psdevise.systems.chollet import relevant

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """
    Attributes:
        names: all labels, CIFAR's own first.
        further: CIFAR's label → the labels that come with it; coarse: coarse class → its labels.
        unseen: of CIFAR's labels those of `unseen_20.txt`.
        rows: set of pictures → what is on each; `test` and `test scenes` to score, the others to train on.
    """

    folder: str
    names: tuple[str, ...]
    further: dict[str, tuple[str, ...]]
    coarse: dict[str, list[str]]
    unseen: tuple[str, ...]
    rows: dict[str, Rows]
    pixels: dict[str, Pixels]

    def relevant(self, which: str) -> npt.NDArray[np.bool_]:
        """bool [pictures, names]."""
        return relevant(self.rows[which], self.names, {})

    def features(self, which: str) -> str:
        """File of features and labels; for the sets of `pixels`, and those that share theirs."""
        return store.join(self.folder, "features", f"{which}.parquet")

    def labels(self, which: str) -> str:
        """File of labels alone, features being 0."""
        path = store.join(self.folder, "annotations", f"{which}.parquet")
        if not store.exists(path):
            features.write_rows(path, np.zeros((len(self.rows[which]), 1), np.float32), self.rows[which])
        return path


def make(data: str, folder: str, sizes: tuple[int, int, int], seed: int, on_progress: OnProgress) -> Made:
    """
    Args:
        sizes: training pictures of each class, training scenes (a quarter as many for testing), last rows of the
            training table that are kept for validation.
    """
    per_class, scenes, validation_rows = sizes
    space = LabelSpace.read(store.join(home(data), "wordnet.tsv"))
    hierarchy = Hierarchy.read(store.join(home(data), "is_a.tsv"))
    coarse: dict[str, list[str]] = store.read_json(store.join(home(data), "superclasses.json"))["superclass"]
    terms = labelling.first_terms(store.join(data, "imagenet"))
    further = labelling.further_labels(space, hierarchy, coarse, terms)
    names = tuple(dict.fromkeys([*space.names, *(name for label in space.names for name in further[label])]))
    listed = set(read_list(store.join(home(data), "unseen_20.txt")))
    unseen = tuple(name for name in space.names if name in listed)

    whole = read_pictures(store.join(home(data), "train.parquet"), on_progress)
    test = read_pictures(store.join(home(data), "test.parquet"), on_progress)
    begin = whole.rows - validation_rows
    train = whole.pick(range(begin)).of(space.names, per_class)
    validation = whole.pick(range(begin, whole.rows))
    pixels, rows = {}, {}
    for which, pictures in (("pictures", train), ("test", test)):
        pixels[which], rows[which] = pictures.pixels, labelling.annotate(pictures.labels, further)
    for which, pictures, count in (("scenes", train, scenes), ("test scenes", test, scenes // 4)):
        pixels[which], drawn = labelling.scenes(pictures, coarse, count, seed + count, seed)
        rows[which] = labelling.annotate_scenes(drawn, further)
    rows["validation"] = labelling.annotate(validation.labels, further)
    clean = rows["pictures"]
    rows["half removed"] = labelling.removed(clean, 0.5, seed)
    rows["four fifths removed"] = labelling.removed(clean, 0.8, seed)
    rows["half as many added"] = labelling.added(clean, names, 0.5, seed)
    rows["seen pictures"] = [row if row[0] not in listed else () for row in clean]
    return Made(folder, names, further, coarse, unseen, rows, pixels)


def compute(made: Made, layer: SingleLayerOptions, seed: int, on_progress: OnProgress) -> None:
    """Writes the features of all sets, unless they are there. Dictionary and standardisation come from training
    pictures of seen classes; scenes are standardised by themselves."""
    if all(store.exists(made.features(which)) for which in made.rows if which != "validation"):
        return
    base = np.array([bool(row) for row in made.rows["seen pictures"]])
    on_progress(0, 1, "dictionary")
    coder = fit(made.pixels["pictures"][base], layer, np.random.default_rng([seed, 59]))
    for train, test, own in (("pictures", "test", base), ("scenes", "test scenes", slice(None))):
        values = coder.codes(made.pixels[train], _progress(on_progress, train))
        standard = Standard(values[own])
        values = standard(values)
        of_test = coder.codes(made.pixels[test], _progress(on_progress, test))
        features.write_rows(made.features(test), standard(of_test), made.rows[test])
        for which, rows in made.rows.items():
            if which not in made.pixels and which != "validation" and train == "pictures":
                features.write_rows(made.features(which), values, rows)
        features.write_rows(made.features(train), values, made.rows[train])


def _progress(on_progress: OnProgress, which: str) -> Callable[[int, int], None]:
    return lambda done, of: on_progress(done, of, f"features of {which}")
