"""Which vectors a system's pictures are compared with, in training and after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from psdevise import scores
from psdevise.orchestrator.graph import Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.prepare import label_space, label_vectors, load_vectors, term_of
from psdevise.phases.joint import random_vectors, unit_vectors
from psdevise.phases.targets import Targets

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def trains_labels(options: RunOptions, system: str) -> bool:
    """Whether the joint phase also moves the labels' vectors; those of baselines stay."""
    return system == "devise" and options.joint.label_vectors == "trained"


def words_of(options: RunOptions, inputs: Inputs, system: str) -> Inputs:
    """What a system reads of words and labels: of DeViSE its own, where the joint phase went on training them."""
    if not trains_labels(options, system):
        return inputs
    own = inputs["joint-devise"]
    return {**inputs, "language": own, "labels": own}


def system_vectors(options: RunOptions, inputs: Inputs, system: str) -> tuple[tuple[str, ...], Floats]:
    """The classes and their unit vectors, as one system uses them [classes, dim]."""
    names, matrix = label_vectors(inputs)
    if system == "random":
        return names, random_vectors(len(names), matrix.shape[1], options.seed)
    return names, unit_vectors(matrix, _mean(options, inputs))


def system_terms(options: RunOptions, inputs: Inputs, system: str) -> dict[str, Floats]:
    """class → the unit vectors of its terms [terms, dim]: one, unless a class has what is drawn from in training."""
    if not _several(options, system):
        names, matrix = system_vectors(options, inputs, system)
        return {name: row[None] for name, row in zip(names, matrix, strict=True)}
    names, whole = label_vectors(inputs)[0], _terms(options, inputs)
    assert whole.owner is not None
    return {name: whole.vectors[whole.owner == i] for i, name in enumerate(names)}


def system_targets(options: RunOptions, inputs: Inputs, system: str, classes: Sequence[str]) -> Targets:
    """What the joint phase trains on, the classes in this order."""
    by_class = system_terms(options, inputs, system)
    rows = [by_class[name] for name in classes]
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows]) if _several(options, system) else None
    lexicon = _lexicon(options, inputs, system, classes) if options.joint.false_terms == "lexicon" else None
    return Targets(np.concatenate(rows), owner, lexicon)


def system_groups(options: RunOptions, inputs: Inputs, system: str, classes: Sequence[str]) -> Ints:
    """Tie groups: classes of which all terms are the same share a number."""
    by_class = system_terms(options, inputs, system)
    rows = [by_class[name] for name in classes]
    return scores.tie_groups_of_sets(np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(r) for r in rows]))


def training_mean(inputs: Inputs, names: tuple[str, ...], matrix: Floats) -> Floats:
    """The mean of the training labels' vectors: what `joint.centre` takes from every candidate."""
    seen = set(inputs["images"].figures["seen"])
    return np.asarray(matrix[[i for i, n in enumerate(names) if n in seen]].mean(axis=0), np.float32)


def _several(options: RunOptions, system: str) -> bool:
    return options.labels.resolve.terms == "sample" and system != "random"


def _mean(options: RunOptions, inputs: Inputs) -> Floats | None:
    return training_mean(inputs, *label_vectors(inputs)) if options.joint.centre else None


def _terms(options: RunOptions, inputs: Inputs) -> Targets:
    whole = Targets.read(inputs["labels"].path("terms.safetensors"))
    return Targets(unit_vectors(whole.vectors, _mean(options, inputs)), whole.owner)


def _lexicon(options: RunOptions, inputs: Inputs, system: str, classes: Sequence[str]) -> Floats:
    """Unit vectors of the terms that name none of the classes."""
    found, space = load_vectors(options, inputs), label_space(options, inputs)
    cut = term_of(inputs, found)
    own = {cut(term) for name in classes for term in space.terms[name]}
    others = [i for i, term in enumerate(found.terms) if term not in own and found.matrix[i].any()]
    if system == "random":
        return random_vectors(len(others), found.dim, options.seed + 1)
    return unit_vectors(found.matrix[others], _mean(options, inputs))
