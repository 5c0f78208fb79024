"""Label embeddings from co-occurrence (Chollet 2016), and the logistic regression that the paper compares them with.

A picture with labels L is regressed by cosine proximity on the sum of their vectors, rows of E (`labels.cooccurrence`);
labels are ranked by their nearness to what comes out:

    loss = 1 − cos(W v + b, Σ_{l ∈ L} e_l),   score(picture, label) = cos(W v + b, e_l)

The last layer is k wide instead of as wide as there are labels. A label that no training picture has is placed by the
labels that it occurs with (`Factors.place`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from psdevise.data import features
from psdevise.errors import LabelError
from psdevise.labels import cooccurrence
from psdevise.labels.cooccurrence import Factors
from psdevise.labels.vectors import unit_rows
from psdevise.phases.joint import ProjectionOptions
from psdevise.server.optimizer import OptimizerOptions
from psdevise.systems import Scores
from psdevise.systems.heads import learn
from psdevise.systems.recipe import Known, Learned, Lesson, Values, columns
from psdevise.worker.module import Loss, of_mean
from psdevise.worker.task import Figures

EMBEDDED = ProjectionOptions(epochs=6, optimizer=OptimizerOptions(rate=0.001))
LOGISTIC = ProjectionOptions(epochs=6, optimizer=OptimizerOptions(rate=0.1))

Wrap = Callable[[Loss], Loss]
"""Puts something around the loss: whoever wants to look on while it trains."""


def _as_it_is(loss: Loss) -> Loss:
    return loss


@dataclass(frozen=True)
class Chollet:
    """
    Args:
        k: columns of E; 0: the one-hot control, E = I, that knows no co-occurrence.
        rule: what stands for the PMI of labels that never occur together.
        related: (label, labels that are on every picture of it), as WordNet's ancestors are: added to the pictures' own
            for the co-occurrences and the sums, and what a new label is placed by.
        annotations: a feature file whose labels are counted in the training pictures' place.
    """

    k: int = 128
    rule: cooccurrence.Rule = "ppmi"
    related: tuple[tuple[str, tuple[str, ...]], ...] = ()
    annotations: str = ""
    options: ProjectionOptions = EMBEDDED
    name: str = "chollet"
    variant: str = "default"
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        embedding = self.embedding(lesson)
        return {**self.train(lesson, embedding), **embedding}

    def embedding(self, lesson: Lesson) -> Learned:
        """`labels`: E of all labels in the order of `all_labels`, and what placing a new one takes."""
        names = self.all_labels(lesson.seen)
        if self.k == 0:
            return {"labels": np.eye(len(names), dtype=np.float32)}
        rows = features.read(self.annotations).labels if self.annotations else lesson.labels
        counts = cooccurrence.count(relevant(rows, names, dict(self.related)))
        if not counts.each.any():
            raise LabelError("none of the labels occurs", where=self.annotations or lesson.features)
        found = cooccurrence.factorise(cooccurrence.pmi(counts, self.rule), min(self.k, len(names)))
        about = np.array([found.negative, found.dropped, found.cut])
        frequency = counts.each / counts.pictures
        return {
            "labels": found.vectors.astype(np.float32),
            "values": found.values,
            "basis": found.basis,
            "frequency": frequency,
            "about": about,
        }

    def train(self, lesson: Lesson, embedding: Learned, wrap: Wrap = _as_it_is) -> Learned:
        """The map alone, on given label vectors."""
        sums = torch.from_numpy(self.sums(lesson.seen, embedding["labels"]))
        loss = partial(cosine_proximity, vectors=sums)
        return learn(lesson, _Map(sums.shape[1]), wrap(loss), self.options)

    def sums(self, seen: tuple[str, ...], vectors: Values) -> Values:
        """Of each training label its own and its related ones' vectors, float32 [len(seen), k]."""
        index = {name: i for i, name in enumerate(self.all_labels(seen))}
        related = dict(self.related)
        return np.stack([vectors[[index[n] for n in _with(label, related)]].sum(axis=0) for label in seen])

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        mapped = unit_rows(values @ learned["weight"].T + learned["bias"])
        names = self.all_labels(known.seen)
        found = columns(mapped @ unit_rows(learned["labels"]).T, names, labels)
        related = dict(self.related)
        new = [i for i, label in enumerate(labels) if label not in known.seen and label in related]
        if new and self.k:
            placed = self.place(learned, names, [related[labels[i]] for i in new])
            found[:, new] = mapped @ unit_rows(placed).T
        return found

    def place(self, learned: Learned, names: Sequence[str], related: Sequence[tuple[str, ...]]) -> Values:
        """Vectors of new labels, each given as the labels that are on all its pictures, float32 [len(related), k].

        With P(a | new) = 1 its PMI with a is −log P(a): how often the new label itself occurs cancels.
        """
        together = np.array([[float(name in row) for name in names] for row in related])
        ones = np.ones(len(together))
        rows = cooccurrence.association(together, ones, np.maximum(learned["frequency"], 1e-12), 1, self.rule)
        factors = Factors(learned["labels"], learned["values"], learned["basis"], 0, 0.0, 0.0)
        return factors.place(np.where(learned["frequency"] > 0, rows, 0.0)).astype(np.float32)

    def all_labels(self, seen: tuple[str, ...]) -> tuple[str, ...]:
        """The training labels, then those that are only related to them."""
        related = dict(self.related)
        return tuple(dict.fromkeys([*seen, *(name for label in seen for name in related.get(label, ()))]))


@dataclass(frozen=True)
class Logistic:
    """A logistic regression per label, σ(W v + b), W = 0 at the start. It names no label that it was not trained on.

    Args:
        bias: at the start: prior: log odds of the label's frequency; zero: 0, from which rare labels must come down.
    """

    bias: Literal["prior", "zero"] = "prior"
    options: ProjectionOptions = LOGISTIC
    name: str = "logistic"
    variant: str = "default"
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        return self.train(lesson)

    def train(self, lesson: Lesson, wrap: Wrap = _as_it_is) -> Learned:
        frequency = relevant(lesson.labels, lesson.seen, {}).mean(axis=0)
        start = np.log(np.maximum(frequency, 1e-6) / np.maximum(1 - frequency, 1e-6)) if self.bias == "prior" else None
        make = _Labels(len(lesson.seen), None if start is None else tuple(map(float, start)))
        return learn(lesson, make, wrap(logistic_loss), self.options)

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        return columns(values @ learned["weight"].T + learned["bias"], known.seen, labels)


def relevant(
    rows: Sequence[tuple[str, ...]], names: Sequence[str], related: dict[str, tuple[str, ...]]
) -> npt.NDArray[np.bool_]:
    """bool [len(rows), len(names)]: which picture has which label, related ones with them."""
    index = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(rows), len(names)), bool)
    for row, labels in enumerate(rows):
        found[row, [index[n] for label in labels for n in _with(label, related) if n in index]] = True
    return found


def cosine_proximity(
    module: nn.Module, batch: Any, rng: np.random.Generator, vectors: Tensor
) -> tuple[Tensor, Figures]:
    """1 − cos(W v + b, Σ of the true labels' vectors), mean over pictures; a sum of 0 has cosine 0.

    Args:
        vectors: float32 [labels, k], not normalised.
    """
    values, true = batch
    targets = F.normalize(true.float() @ vectors.to(values.device), dim=1)
    value = (1 - (F.normalize(module(values), dim=1) * targets).sum(dim=1)).mean()
    return of_mean(value, len(true))


def logistic_loss(module: nn.Module, batch: Any, rng: np.random.Generator) -> tuple[Tensor, Figures]:
    """Σ over labels of −log p(label on or off the picture), mean over pictures."""
    values, true = batch
    value = F.binary_cross_entropy_with_logits(module(values), true.float(), reduction="sum") / len(true)
    return of_mean(value, len(true))


def _with(label: str, related: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((label, *related.get(label, ()))))


@dataclass(frozen=True)
class _Map:
    """Small at the start: a cosine has no gradient at 0."""

    dim: int

    def __call__(self, width: int) -> nn.Module:
        layer = nn.Linear(width, self.dim)
        nn.init.normal_(layer.weight, std=0.01 * width**-0.5)
        nn.init.zeros_(layer.bias)
        return layer


@dataclass(frozen=True)
class _Labels:
    labels: int
    bias: tuple[float, ...] | None

    def __call__(self, width: int) -> nn.Module:
        layer = nn.Linear(width, self.labels)
        nn.init.zeros_(layer.weight)
        with torch.no_grad():
            layer.bias.copy_(torch.zeros(self.labels) if self.bias is None else torch.tensor(self.bias))
        return layer
