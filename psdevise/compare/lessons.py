"""Trains a comparison's systems on one split's features and measures each: a cell per system."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from psdevise import scores, store
from psdevise.compare.cells import Arrays, Cells
from psdevise.compare.frozen import OnProgress
from psdevise.compare.measure import measured
from psdevise.compare.training import trainer
from psdevise.data import features
from psdevise.errors import ConfigError, DataError
from psdevise.evaluation.evaluate import Scored, Setting
from psdevise.evaluation.result import plain
from psdevise.labels.split import Split
from psdevise.systems.finished import Finished
from psdevise.systems.recipe import Known, Learned, Lesson, Recipe, fingerprint


@dataclass(frozen=True)
class Entry:
    """A system of the comparison, and which of the word vectors it uses."""

    recipe: Recipe
    words: int = 0
    tuned: bool = True  # also trained without the tuning classes, for its calibration bias
    about: str = ""  # key of the word vectors, or of what the system was given

    @property
    def key(self) -> str:
        return f"{self.recipe.name}-{self.recipe.variant}"

    @property
    def cell(self) -> str:
        """Holds what a cell's content depends on: a changed system of the user's own is computed anew."""
        return f"{self.key}-{store.key_of([fingerprint(self.recipe), self.about])[:8]}"


@dataclass(frozen=True)
class Ground:
    """Feature files of one split.

    Args:
        classes: all of them, in the order of the label table.
        train: training pictures of the seen classes.
        without: the same and `validation` pictures of the seen classes from features that no tuning class had a part
            in; None: no calibration bias is chosen.
        test: pictures of all classes.
        given: (system's key, without tuning classes?) → what it has learned elsewhere.
    """

    split: Split
    tune: tuple[str, ...]
    classes: tuple[str, ...]
    folder: str
    seed: int
    train: str
    test: str
    without: str | None = None
    validation: str | None = None
    given: Mapping[tuple[str, bool], Learned] = field(default_factory=dict)


def fill(
    ground: Ground,
    chosen: Sequence[Entry],
    cells: Cells,
    known: Callable[[tuple[str, ...], Entry], Known],
    setting: Callable[[Entry], Setting],
    on_progress: OnProgress,
) -> None:
    """Fills in the missing cells.

    Args:
        known: (seen classes, entry) → what the entry's system is told of labels.
    """
    kept = {name for entry in chosen for name in entry.recipe.needs}
    held_back: dict[bool, dict[str, Learned]] = {True: {}, False: {}}
    test = features.read(ground.test)
    true = np.array([ground.classes.index(row[0]) for row in test.labels], np.int64)
    for done, entry in enumerate(chosen):
        key = f"{ground.split.name}/{entry.cell}"
        needed = entry.recipe.name in kept and entry.recipe.variant == "default"
        if cells.has(key) and not needed:
            continue
        on_progress(done, len(chosen), f"{ground.split.name}: {entry.recipe.name} {entry.recipe.variant}")
        begin = time.process_time()
        learned: dict[bool, Finished] = {}
        for without in (False, True) if ground.without is not None and (entry.tuned or needed) else (False,):
            finished, fitted = _learn(ground, entry, without, known, held_back[without])
            learned[without] = finished
            if needed:
                held_back[without][entry.recipe.name] = fitted
        if not cells.has(key):
            where = setting(entry)
            on_validation: Arrays = {}
            if entry.tuned and True in learned:
                bias, on_validation = _validated(learned[True], ground)
                where = replace(where, bias={entry.recipe.name: bias})
            values = {entry.recipe.name: learned[False].score_values(test.values, ground.classes)}
            rows, arrays = measured(Scored(ground.classes, true, values), learned[False], where)
            about = {"rows": plain(rows), "seconds": time.process_time() - begin}
            cells.write(key, {**arrays, **on_validation, "about": np.array(json.dumps(about))})


def _learn(
    ground: Ground,
    entry: Entry,
    without: bool,
    known: Callable[[tuple[str, ...], Entry], Known],
    held_back: Mapping[str, Learned],
) -> tuple[Finished, Learned]:
    seen = tuple(c for c in ground.split.seen if not without or c not in ground.tune)
    told = known(seen, entry)
    fitted = ground.given.get((entry.key, without))
    if fitted is None:
        path = ground.without if without else ground.train
        assert path is not None
        lesson = Lesson(told, path, ground.folder, trainer(ground.seed), _needs(entry, held_back))
        fitted = entry.recipe.fit(lesson)
    return Finished(entry.recipe, fitted, told, _no_core), fitted


def _needs(entry: Entry, fitted: Mapping[str, Learned]) -> dict[str, Learned]:
    missing = [name for name in entry.recipe.needs if name not in fitted]
    if missing:
        raise ConfigError(f"{entry.key} needs {missing[0]}, which no system before it is", where="system")
    return {name: fitted[name] for name in entry.recipe.needs}


def _validated(system: Finished, ground: Ground) -> tuple[float, Arrays]:
    """The calibration bias, and what else choices are made by: hit@1 on validation pictures, of the classes that the
    system was trained on among themselves, and of the tuning classes, which stand for the unseen ones, among these."""
    assert ground.validation is not None
    classes = ground.split.seen
    validation = features.read(ground.validation, keep=classes)
    true = np.array([classes.index(row[0]) for row in validation.labels], np.int64)
    matrix = system.score_values(validation.values, classes)
    is_tuning = np.isin(classes, list(ground.tune))
    arrays: Arrays = {}
    for name, columns in (("seen", ~is_tuning), ("tuning", is_tuning)):
        among = np.flatnonzero(columns)
        rows = columns[true]
        places = scores.places(matrix[np.ix_(rows, columns)], np.searchsorted(among, true[rows]))
        arrays[f"validation/{name}/hit@1"] = places.hits(1).astype(np.uint8)
    return scores.calibration(matrix, true, ~is_tuning).best_bias(), arrays


def _no_core(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    raise DataError("a comparison scores features that were computed before")


def collect(cells: Cells, splits: Sequence[Split], chosen: Sequence[Entry]) -> dict[str, Any]:
    """All cells: rows of results, arrays by (split, system key), seconds."""
    rows, arrays, seconds = [], {}, {}
    for split in splits:
        for entry in chosen:
            found = cells.read(f"{split.name}/{entry.cell}")
            about = json.loads(str(found.pop("about")))
            rows += about["rows"]
            seconds[split.name, entry.key] = about["seconds"]
            arrays[split.name, entry.key] = found
    return {"rows": rows, "arrays": arrays, "seconds": seconds, "splits": splits, "entries": chosen}
