"""`psdevise compare cifar100 --run`, table (ii): every system on a finished run's trained core, by its own recipe.

The run's own DeViSE, random and L2 models count as they are, after the projection and after fine-tuning; softmax is its
softmax layer. All others are trained on the core's outputs. The calibration bias comes from a second run, whose core
saw neither the unseen nor the tuning classes; without one no bias is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from safetensors.numpy import load as load_safetensors
from torch import nn

from psdevise import config, scores, store
from psdevise.compare.annotations import ancestors
from psdevise.compare.cells import Cells
from psdevise.compare.frozen import OnProgress
from psdevise.compare.lessons import Entry, Ground, collect, fill
from psdevise.compare.measure import HIT_K, HP_K
from psdevise.data import features
from psdevise.data.pictures import PictureTable
from psdevise.errors import ConfigError, DataError
from psdevise.evaluation.evaluate import EvaluationOptions, Setting
from psdevise.labels.split import Split
from psdevise.models.core import CoreOptions
from psdevise.orchestrator.artifacts import Artifact, Artifacts
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.prepare import label_space, label_vectors, load_hierarchy, prepared, split_of
from psdevise.phases import features as features_phase
from psdevise.phases.features import validation_path
from psdevise.phases.joint import load_devise, random_vectors, unit_vectors
from psdevise.phases.visual import load_softmax
from psdevise.systems.baselines import WORDLESS
from psdevise.systems.chollet import Chollet, Logistic
from psdevise.systems.cosine import CosineSoftmax
from psdevise.systems.devise import Devise, Ridge
from psdevise.systems.linear import ConSE, SoftmaxHead
from psdevise.systems.own import load_recipe
from psdevise.systems.recipe import Known, Learned, Recipe
from psdevise.systems.socher import Socher
from psdevise.systems.wsabie import Wsabie

UNABLE = ("softmax", "wsabie", "logistic")  # to name what they have not seen
JOINT = ("devise", "random", "l2")
TUNED = "fine-tuned"


@dataclass(frozen=True)
class Run:
    """A finished run: its options and what its phases made."""

    folder: str
    options: RunOptions
    inputs: dict[str, Artifact]

    @property
    def core(self) -> CoreOptions:
        return self.options.visual.core

    @property
    def tune(self) -> tuple[str, ...]:
        return tuple(self.inputs["images"].figures["tune"])

    @property
    def has(self) -> tuple[str, ...]:
        """Its models that were trained by the joint phase."""
        return tuple(name for name in JOINT if f"joint-{name}" in self.inputs)


def open_run(folder: str) -> Run:
    """
    Raises:
        DataError: no finished run lies there, or one without pictures.
    """
    named = store.join(folder, "evaluate.json")
    if not store.exists(named):
        raise DataError("no finished run with pictures here", where=folder, mend="psdevise run goes on with it")
    last = str(store.read_json(named)["folder"]).rstrip("/").rsplit("/", 1)[-1]
    about = store.read_json(store.join(folder, "artifacts", last, "artifact.json"))
    found = {name: Artifacts(folder).find(name, key) for name, key in about["made_from"]["inputs"].items()}
    missing = [name for name, artifact in found.items() if artifact is None]
    if missing:
        raise DataError(f"its {missing[0]} is not there", where=folder, mend="psdevise run makes it anew")
    options = config.load(RunOptions, store.join(folder, "config.yaml"))
    return Run(folder, options, {name: artifact for name, artifact in found.items() if artifact is not None})


def check(
    folders: Sequence[str], tuning: str | None, draws: int, systems: Sequence[str], classes: Sequence[str]
) -> None:
    """What can be told before anything is computed: the runs are there, fit one another, and know these classes.

    Raises:
        ConfigError: the runs do not fit one another, or are of other classes. DataError: a run is not finished.
    """
    for one, _, _ in _runs(folders, tuning, draws, systems)[0]:
        if set(one.inputs["images"].figures["classes"]) != set(classes):
            raise ConfigError("this run is not of CIFAR-100's classes", where=one.folder, mend="jobs/cifar100.yaml")


def run(
    folders: Sequence[str],
    tuning: str | None,
    out: str,
    draws: int,
    systems: Sequence[str],
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Fills in the missing cells of every run; several runs stand for one another's seeds.

    Args:
        folders: of finished runs with the same unseen classes and other seeds.
        tuning: of a run whose unseen classes are theirs and the tuning classes; None: no calibration bias.
        draws: of random embeddings; systems: the user's own.

    Raises:
        ConfigError: the runs do not fit one another. DataError: a run is not finished.
    """
    runs, without = _runs(folders, tuning, draws, systems)
    cells = Cells(store.join(out, "trained"), {"comparison": "cifar100, trained cores"})
    for one, split, entries in runs:
        if not all(cells.has(f"{split.name}/{entry.cell}") for entry in entries):
            _fill(one, without, split, entries, cells, on_progress)
    parts = [collect(cells, [split], entries) for _, split, entries in runs]
    return {
        "rows": [row for part in parts for row in part["rows"]],
        "arrays": {key: value for part in parts for key, value in part["arrays"].items()},
        "seconds": {key: value for part in parts for key, value in part["seconds"].items()},
        "splits": [split for _, split, _ in runs],
        "entries": runs[0][2],
        "calibrated": without is not None,
    }


def _runs(
    folders: Sequence[str], tuning: str | None, draws: int, systems: Sequence[str]
) -> tuple[list[tuple[Run, Split, list[Entry]]], Run | None]:
    """Each run with its split and the systems on it, and the tuning run."""
    runs = [open_run(folder) for folder in folders]
    without = None if tuning is None else open_run(tuning)
    splits, chosen = [], []
    for one in runs:
        split = split_of(one.inputs)
        splits.append(replace(split, name=f"{split.name}_{one.options.seed}"))
        _check(one, without)
        chosen.append(_entries(one, without, draws, systems))
    if len({split.name for split in splits}) < len(splits) or len({split.unseen for split in splits}) > 1:
        raise ConfigError("the runs need other seeds and the same unseen classes", where="compare cifar100 --run")
    if any([e.key for e in entries] != [e.key for e in chosen[0]] for entries in chosen):
        raise ConfigError("the runs have different baselines", where="compare cifar100 --run")
    return list(zip(runs, splits, chosen, strict=True)), without


def _check(one: Run, without: Run | None) -> None:
    if without is None:
        return
    wanted = {*split_of(one.inputs).unseen, *one.tune}
    if not one.tune or set(split_of(without.inputs).unseen) != wanted:
        raise ConfigError(
            f"its {len(split_of(without.inputs).unseen)} unseen classes are not the unseen and the tuning classes of"
            f" {one.folder}",
            where=without.folder,
            mend="run with labels.unseen: a file of both lists together",
        )


def _entries(one: Run, without: Run | None, draws: int, systems: Sequence[str]) -> list[Entry]:
    space, hierarchy = label_space(one.options, one.inputs), load_hierarchy(one.options, one.inputs)
    joint = one.options.joint
    own: list[Recipe] = [SoftmaxHead()]
    for name in one.has:
        options = replace(joint, loss="l2") if name == "l2" else joint
        own += [Devise(options, name, _projection(name)), Devise(options, name, TUNED)]
    own += [Devise(joint, "random", f"draw {number}", number) for number in range(1, draws)]
    own += [Ridge(), Wsabie(), ConSE(), CosineSoftmax(), Socher()]
    if hierarchy is not None:
        own += [Chollet(related=tuple(ancestors(space, hierarchy).items()))]
    own += [Logistic(), *(load_recipe(name) for name in systems)]
    shared = [a.key for run in (one, without) if run is not None for a in run.inputs.values()]
    return [Entry(recipe, tuned=recipe.name not in UNABLE, about=store.key_of(shared)) for recipe in own]


def _projection(name: str) -> str:
    """The variant of a joint model before fine-tuning, as table (i) calls it."""
    return "sgd" if name == "l2" else "default"


def _fill(
    one: Run, without: Run | None, split: Split, entries: Sequence[Entry], cells: Cells, on_progress: OnProgress
) -> None:
    folder = store.join(cells.folder, f"features_{split.name}")
    space, hierarchy = label_space(one.options, one.inputs), load_hierarchy(one.options, one.inputs)
    measures = EvaluationOptions(hit_k=HIT_K, hp_k=HP_K)
    setting = Setting("cifar100", one.options.seed, split, space, hierarchy, measures)
    vectors = dict(zip(*label_vectors(one.inputs), strict=True))
    groups = scores.tie_groups(np.stack([vectors[c] for c in space.names]))

    def known(seen: tuple[str, ...], entry: Entry) -> Known:
        run_of = one if without is None or seen == split.seen else without
        names, raw = label_vectors(run_of.inputs)
        if entry.recipe.name == "random" and not entry.recipe.variant.startswith("draw"):
            unit = random_vectors(len(names), raw.shape[1], run_of.options.seed)
        else:
            centre = run_of.options.joint.centre
            unit = unit_vectors(raw, raw[[names.index(c) for c in seen]].mean(axis=0) if centre else None)
        return Known(seen, dict(zip(names, unit, strict=True)), run_of.options.seed)

    def where(entry: Entry) -> Setting:
        name = entry.recipe.name
        return setting if name in (*WORDLESS, "random") else replace(setting, groups={name: groups})

    ground = _ground(one, without, split, space.names, folder, on_progress)
    fill(ground, [e for e in entries if e.recipe.variant != TUNED], cells, known, where, on_progress)
    for entry in entries:
        if entry.recipe.variant == TUNED and not cells.has(f"{split.name}/{entry.cell}"):
            fill(_tuned(entry, one, without, ground, on_progress), [entry], cells, known, where, on_progress)
    store.remove(folder)


def _ground(
    one: Run, without: Run | None, split: Split, classes: tuple[str, ...], folder: str, on_progress: OnProgress
) -> Ground:
    """The trained core's outputs, and what the run itself learned on them."""
    given: dict[tuple[str, bool], Learned] = {}
    for run_of, flag in ((one, False), (without, True)):
        if run_of is None:
            continue
        head = _tensors(run_of, "visual", "model")
        given["softmax-default", flag] = {"weight": head["head.weight"], "bias": head["head.bias"]}
        for name in run_of.has:
            weight = _tensors(run_of, f"joint-{name}", "projection")["projection.weight"]
            given[f"{name}-{_projection(name)}", flag] = {"projection.weight": weight}
    path = store.join(folder, "test.parquet")
    if not store.exists(path):
        core = load_softmax(one.inputs["visual"].path("model.safetensors"), one.core).core
        _write(path, prepared(one.inputs["images"].folder, "test"), 0, core, one.core, on_progress, "test pictures")
    trained = None if without is None else without.inputs["features"].path("train.parquet")
    return Ground(
        split,
        one.tune,
        classes,
        folder,
        one.options.seed,
        train=one.inputs["features"].path("train.parquet"),
        test=path,
        without=trained,
        validation=None if trained is None else validation_path(trained),
        given=given,
    )


def _tuned(entry: Entry, one: Run, without: Run | None, ground: Ground, on_progress: OnProgress) -> Ground:
    """The same for a model whose core was fine-tuned with it: the pictures as it projects them."""
    name = entry.recipe.name
    folder = store.join(ground.folder, name)
    given: dict[tuple[str, bool], Learned] = {}
    paths: dict[bool, str] = {}
    for run_of, flag, part in ((one, False, "test"), (without, True, "train")):
        if run_of is None or name not in run_of.has:
            continue
        model = load_devise(run_of.inputs[f"joint-{name}"].path("model.safetensors"), run_of.core)
        table = prepared(run_of.inputs["images"].folder, part)
        first = run_of.inputs["images"].figures["validation_from"] if flag else 0
        paths[flag] = store.join(folder, f"{part}.parquet")
        _write(paths[flag], table, first, model, run_of.core, on_progress, f"{name}, {TUNED}: {part} pictures")
        given[entry.key, flag] = {"projection.weight": np.eye(model.projection.out_features, dtype=np.float32)}
    back = paths.get(True)
    return replace(ground, test=paths[False], without=back, validation=back, given=given)


def _write(
    path: str,
    table: PictureTable,
    first: int,
    module: nn.Module,
    core: CoreOptions,
    on_progress: OnProgress,
    what: str,
) -> None:
    """The module's outputs for the pictures that stood at row `first` of their source or behind it."""

    def progress(done: int, of: int) -> None:
        on_progress(done, of, what)

    parts = [part for part, _ in features_phase.compute(table, module, core, progress, first)]
    features.write(path, parts, parts[0].dim)


def _tensors(run_of: Run, phase: str, name: str) -> Learned:
    return load_safetensors(store.read_bytes(run_of.inputs[phase].path(f"{name}.safetensors")))
