"""`psdevise compare labels`: Chollet 2016's label embeddings beside logistic regressions, on pictures with many labels.

Several conditions (single pictures, scenes, labels missing or wrong in training) on frozen features that no label took
part in; every system's MAP@100 on clean test pictures along its training; unseen classes placed by their labels.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from psdevise import scores, store
from psdevise.compare import map100, multilabel
from psdevise.compare.annotations import TERMS
from psdevise.compare.cells import Arrays, Cells, content
from psdevise.compare.frozen import OnProgress
from psdevise.compare.multilabel import Made
from psdevise.compare.training import trainer
from psdevise.compare.watched import Watched
from psdevise.data import features
from psdevise.errors import ConfigError
from psdevise.models.single_layer import SingleLayerOptions
from psdevise.phases.joint import ProjectionOptions
from psdevise.server.ledger import cut
from psdevise.systems.chollet import EMBEDDED, LOGISTIC, Chollet, Logistic
from psdevise.systems.recipe import Known, Learned, Lesson

READINGS = ("by_class", "by_image")
FILES = ("train.parquet", "test.parquet", "wordnet.tsv", "is_a.tsv", "superclasses.json", "unseen_20.txt")
POINTS = 14  # of a curve
UNSEEN = "unseen classes"
# Condition → the set that trains, the clean one that tests, and whose labels are the other annotation set.
CONDITIONS = {
    "pictures": ("pictures", "test", "scenes"),
    "scenes": ("scenes", "test scenes", "pictures"),
    "half removed": ("half removed", "test", "validation"),
    "four fifths removed": ("four fifths removed", "test", "validation"),
    "half as many added": ("half as many added", "test", "validation"),
    UNSEEN: ("seen pictures", "test", "validation"),
}
Embedding = Chollet | Logistic


@dataclass(frozen=True)
class Options:
    """
    Args:
        data: folder that holds cifar100/, and imagenet/ for the names of ancestors.
        ks: widths of the label vectors; the highest is the default.
        train_per_class: the first so many training pictures of each class.
        scenes: training scenes; a quarter as many test.
    """

    data: str
    out: str
    ks: tuple[int, ...] = (32, 64, 128)
    epochs: int = 6
    train_per_class: int = 250
    scenes: int = 12_000
    layer: SingleLayerOptions = SingleLayerOptions(coding="triangle", bases=400)
    validation_rows: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ks or len(set(self.ks)) < len(self.ks) or min(self.ks) < 1:
            raise ConfigError(f"k is {self.ks}", where="compare labels", mend="different numbers from 1 on")

    @property
    def k(self) -> int:
        return max(self.ks)


def systems(condition: str, options: Options, made: Made) -> list[Embedding]:
    # A constant rate, so that a point of the curve does not depend on how long training goes on behind it.
    embedded = replace(EMBEDDED, epochs=options.epochs, schedule="constant")
    logistic = replace(LOGISTIC, epochs=options.epochs, schedule="constant")
    further = [k for k in options.ks if k != options.k]
    if condition == UNSEEN:
        new = tuple((label, made.further[label]) for label in made.unseen)
        one = Chollet(options.k, related=new, options=embedded)
        return [one, *(replace(one, k=k, variant=f"k = {k}") for k in further)]
    one = Chollet(options.k, options=embedded)
    found: list[Embedding] = [
        Logistic(options=logistic),
        Logistic("zero", logistic, variant="zero bias"),
        one,
        replace(one, k=0, variant="one-hot"),
        replace(one, annotations=made.labels(CONDITIONS[condition][2]), variant="other annotations"),
    ]
    if condition == "pictures":
        found += [replace(one, k=k, variant=f"k = {k}") for k in further]
        found.append(replace(one, rule="zero", variant="PMI, 0 where never together"))
    return found


def run(options: Options, on_progress: OnProgress) -> dict[str, Any]:
    """Fills in the missing cells; `write_labels.write` shows what comes back.

    Raises:
        ConfigError: the folder holds another comparison.
        DataError, LabelError: the data cannot be used.
    """
    cells = Cells(options.out, _plan(options))
    sizes = options.train_per_class, options.scenes, options.validation_rows
    made = multilabel.make(options.data, options.out, sizes, options.seed, on_progress)
    wanted = [(condition, system) for condition in CONDITIONS for system in systems(condition, options, made)]
    todo = [pair for pair in wanted if not cells.has(_key(*pair))]
    if todo:
        multilabel.compute(made, options.layer, options.seed, on_progress)
    for condition, system in todo:
        on_progress(wanted.index((condition, system)), len(wanted), f"{condition}: {system.name}, {system.variant}")
        cells.write(_key(condition, system), _cell(condition, system, made, options))
    for name in ("features", "training"):
        store.remove(store.join(options.out, name))
    found = {(condition, f"{s.name}-{s.variant}"): cells.read(_key(condition, s)) for condition, s in wanted}
    of_pictures = Lesson(Known(made.names, {}, 0), made.labels("pictures"), options.out, trainer(0))
    return {"cells": found, "made": made, "embedding": Chollet(options.k).embedding(of_pictures)}


def _key(condition: str, system: Embedding) -> str:
    return f"{condition}/{system.name}-{system.variant}"


def _cell(condition: str, system: Embedding, made: Made, options: Options) -> Arrays:
    train, tested, _ = CONDITIONS[condition]
    names = made.names if condition != UNSEEN else tuple(name for name in made.names if name not in made.unseen)
    known = Known(names, {}, options.seed)
    folder = store.join(options.out, "training")
    lesson = Lesson(known, made.features(train), folder, trainer(options.seed, workers=1))
    expected = updates(len(lesson.values), system.options)
    watched = Watched(np.unique(np.geomspace(5, max(6.0, 0.9 * expected), POINTS).round()).astype(int).tolist())
    begin = time.process_time()
    embedding: Learned = {}
    if isinstance(system, Chollet):
        embedding = system.embedding(lesson)
        learned = system.train(lesson, embedding, watched.around)
    else:
        learned = system.train(lesson, watched.around)
    about: dict[str, Any] = {"seconds": time.process_time() - begin, "steps": watched.steps}
    if "about" in embedding:
        about |= dict(zip(("negative", "dropped", "cut"), map(float, embedding["about"]), strict=True))
    note = {"about": np.array(json.dumps(about))}
    test = features.read(made.features(tested))
    if condition == UNSEEN:
        return {**_unseen(system, {**learned, **embedding}, known, test, made), **note}
    true = made.relevant(tested)
    curve = []
    for step, parameters in {**watched.kept, watched.steps: learned}.items():
        matrix = system.score({**parameters, **embedding}, known, test.values, made.names)
        curve.append((step, map100.map_at_100(matrix, true)))
    return {**{r: map100.precision_at_100(matrix, true, r) for r in READINGS}, "curve": np.array(curve), **note}


def updates(rows: int, options: ProjectionOptions) -> int:
    """Of one worker in the whole training: a slice ends with a batch of its own."""
    return options.epochs * sum(-(-(stop - start) // options.batch) for start, stop in cut(rows, options.slices))


def _unseen(system: Embedding, learned: Learned, known: Known, test: features.Features, made: Made) -> Arrays:
    """hit@1 and hit@5 per picture of an unseen class, among the unseen classes and among all of CIFAR's."""
    classes = tuple(made.further)
    own = np.array([classes.index(row[0]) for row in test.labels])
    unseen = np.array([classes.index(name) for name in made.unseen])
    rows = np.flatnonzero(np.isin(own, unseen))
    matrix = system.score(learned, known, test.values[rows], classes)
    found: Arrays = {}
    for name, columns in (("unseen", unseen), ("seen+unseen", np.arange(len(classes)))):
        true = np.searchsorted(columns, own[rows])
        for k in (1, 5):
            found[f"{name}/hit@{k}"] = scores.hits(matrix[:, columns], true, k).astype(np.uint8)
    return found


def _plan(options: Options) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(options).items() if name not in ("data", "out", "layer", "ks")}
    files = [f"cifar100/{name}" for name in FILES]
    files += [name for name in (f"imagenet/{table}" for table in TERMS) if store.exists(store.join(options.data, name))]
    return {
        "comparison": "labels",
        "data": content(options.data, files),
        "features": asdict(options.layer),
        "k": list(options.ks),
        **kept,
    }
