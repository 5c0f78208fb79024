"""`psdevise compare cifar100`, table (i): all systems on identical frozen features, over class splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from psdevise import scores, store
from psdevise.compare import frozen
from psdevise.compare.annotations import ancestors
from psdevise.compare.cells import Cells, content
from psdevise.compare.frozen import OnProgress, Pictures
from psdevise.compare.lessons import Entry, Ground, collect, fill
from psdevise.compare.measure import HIT_K, HP_K
from psdevise.compare.splits import class_splits, home, number_of, tuning_classes
from psdevise.errors import ConfigError
from psdevise.evaluation.evaluate import EvaluationOptions, Setting
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.resolve import ResolveOptions, resolve
from psdevise.labels.space import LabelSpace
from psdevise.labels.split import Split
from psdevise.labels.vectors import WordVectors
from psdevise.models.single_layer import SingleLayerOptions
from psdevise.phases.joint import JointOptions, unit_vectors
from psdevise.systems.chollet import Chollet, Logistic
from psdevise.systems.cosine import CosineSoftmax
from psdevise.systems.devise import PROJECTION, Devise, Ridge, l2, margin, random
from psdevise.systems.linear import ConSE, SoftmaxHead
from psdevise.systems.own import load_recipe
from psdevise.systems.recipe import Known, Recipe
from psdevise.systems.socher import Socher
from psdevise.systems.wsabie import Wsabie

MARGINS = (0.01, 0.02, 0.05, 0.2, 0.3, 0.5)  # and .1, DeViSE's own
UNABLE = ("softmax", "wsabie", "logistic")  # to name what they have not seen
WORDLESS = (*UNABLE, "random", "chollet")
FILES = ("train.parquet", "test.parquet", "wordnet.tsv", "is_a.tsv", "splits.json", "unseen_20.txt", "tune_10.txt")


@dataclass(frozen=True)
class Words:
    """Word vectors, how a phrase stands among their terms, and where they came from."""

    vectors: WordVectors
    cut: Callable[[str], str]
    source: str

    @property
    def key(self) -> str:
        """Of the most frequent ones, which tell tables apart."""
        return store.key_of([list(self.vectors.terms[:1000]), self.vectors.matrix[:1000].tolist()])


@dataclass(frozen=True)
class Options:
    """
    Args:
        data: folder that holds cifar100/.
        kinds: lists of `splits.json`; `splits` is how many of each.
        draws: of random embeddings.
        train_per_class: the first so many training pictures of each class; None: all 450 or so.
        systems: the user's own, `module:name`.
        validation_rows: the last ones of the training part choose, and train nothing.
    """

    data: str
    out: str
    kinds: tuple[str, ...] = ("one_per_superclass", "random_20")
    splits: int = 5
    draws: int = 3
    train_per_class: int | None = None
    layer: SingleLayerOptions = SingleLayerOptions(coding="triangle", bases=400)
    systems: tuple[str, ...] = ()
    validation_rows: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value in (("splits", self.splits), ("draws", self.draws)):
            if value < 1:
                raise ConfigError(f"{what} is {value}", where="compare cifar100", mend="at least 1")


def entries(options: Options, words: Sequence[Words]) -> list[Entry]:
    """The systems, each after those it needs. Chollet's knows WordNet's ancestors, where the others know the words."""
    space, hierarchy = _labels(options)
    related = tuple(ancestors(space, hierarchy).items())
    own: list[Recipe] = [Devise(), SoftmaxHead(), *map(random, range(options.draws)), Ridge(), l2()]
    own += [Wsabie(), Wsabie(rank_weight="log", variant="log"), ConSE(), CosineSoftmax(), Socher()]
    own += [Chollet(related=related), Logistic()]
    own += [load_recipe(name) for name in options.systems]
    found = [Entry(recipe, tuned=recipe.name not in UNABLE) for recipe in own]
    whole = Devise(JointOptions(loss="hinge_sum", projection=PROJECTION), variant="whole sum")
    found += [Entry(whole), *(Entry(margin(value)) for value in MARGINS)]
    for number, further in enumerate(words[1:], 1):
        dim = f"{further.vectors.dim}-D"
        found += [Entry(Devise(variant=dim), number), Entry(replace(random(), variant=dim), number)]
    keys = [entry.key for entry in found]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ConfigError(f"two systems are {twice[0]!r}", where="system", mend="give one another variant")
    about = [w.key for w in words]
    return [replace(entry, about=about[entry.words]) for entry in found]


@dataclass(frozen=True)
class Material:
    """What all splits share."""

    space: LabelSpace
    hierarchy: Hierarchy
    train: Pictures
    validation: Pictures
    test: Pictures
    raw: tuple[npt.NDArray[np.float32], ...]  # label vectors as the words have them, one table per Words


def run(options: Options, words: Sequence[Words], on_progress: OnProgress) -> dict[str, Any]:
    """Fills in the missing cells and returns what `tables.cifar100` shows.

    Args:
        words: the first ones are every system's; further ones give DeViSE and random of other dimensions.

    Raises:
        ConfigError: the folder holds another comparison, or two systems are alike.
        DataError, LabelError: the data cannot be used.
    """
    chosen = entries(options, words)
    cells = Cells(options.out, _plan(options))
    splits = class_splits(home(options.data), options.kinds, options.splits)
    todo = [split for split in splits if not all(cells.has(f"{split.name}/{e.cell}") for e in chosen)]
    if todo:
        material = _material(options, words, on_progress)
        for split in todo:
            _fill(split, chosen, cells, material, options, on_progress)
    return collect(cells, splits, chosen)


def _fill(
    split: Split,
    chosen: Sequence[Entry],
    cells: Cells,
    material: Material,
    options: Options,
    on_progress: OnProgress,
) -> None:
    seed = options.seed + number_of(split)
    tune = tuning_classes(home(options.data), split, options.seed)
    folder = store.join(options.out, f"features_{split.name}")
    parts = material.train.of(split.seen, options.train_per_class), material.validation, material.test
    # No tuning class had a part in them: the same features serve the systems that are trained without these.
    paths = frozen.compute(folder, split, tune, parts, options.layer, seed, on_progress)
    ground = Ground(
        split,
        tune,
        material.space.names,
        folder,
        seed,
        train=paths.train,
        test=paths.test,
        without=paths.train,
        validation=paths.validation,
    )
    fill(
        ground,
        chosen,
        cells,
        lambda seen, entry: _known(seen, material, entry, seed),
        lambda entry: _setting(split, material, entry, options),
        on_progress,
    )
    store.remove(folder)


def _known(seen: tuple[str, ...], material: Material, entry: Entry, seed: int) -> Known:
    """Unit vectors after the mean of the training labels' was taken away, as the product's default has it."""
    names, raw = material.space.names, material.raw[entry.words]
    mean = raw[[names.index(c) for c in seen]].mean(axis=0)
    return Known(seen, dict(zip(names, unit_vectors(raw, mean), strict=True)), seed)


def _setting(split: Split, material: Material, entry: Entry, options: Options) -> Setting:
    groups = {} if entry.recipe.name in WORDLESS else {entry.recipe.name: scores.tie_groups(material.raw[entry.words])}
    measures = EvaluationOptions(hit_k=HIT_K, hp_k=HP_K)
    return Setting("cifar100", options.seed, split, material.space, material.hierarchy, measures, groups=groups)


def _material(options: Options, words: Sequence[Words], on_progress: OnProgress) -> Material:
    folder = home(options.data)
    space, hierarchy = _labels(options)
    raw = tuple(resolve(space, w.vectors, ResolveOptions(), hierarchy, w.cut)[0] for w in words)
    whole = frozen.read_pictures(store.join(folder, "train.parquet"), on_progress)
    test = frozen.read_pictures(store.join(folder, "test.parquet"), on_progress)
    begin = whole.rows - options.validation_rows
    return Material(space, hierarchy, whole.pick(range(begin)), whole.pick(range(begin, whole.rows)), test, raw)


def class_names(data: str) -> tuple[str, ...]:
    return LabelSpace.read(store.join(home(data), "wordnet.tsv")).names


def _labels(options: Options) -> tuple[LabelSpace, Hierarchy]:
    folder = home(options.data)
    return LabelSpace.read(store.join(folder, "wordnet.tsv")), Hierarchy.read(store.join(folder, "is_a.tsv"))


def _plan(options: Options) -> dict[str, Any]:
    """What every cell's content depends on. Further splits, draws, systems and word vectors only add cells."""
    return {
        "comparison": "cifar100",
        "data": content(home(options.data), FILES),
        "seed": options.seed,
        "train_per_class": options.train_per_class,
        "validation_rows": options.validation_rows,
        "features": asdict(options.layer),
    }
