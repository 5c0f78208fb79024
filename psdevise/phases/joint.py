"""The joint phase: the softmax layer replaced by a projection into the space of the word vectors.

First the projection alone, from the core's outputs that were computed once; then core and projection
together, the core at a learning rate of its own (Frome et al. 2013, section 3.3). With random vectors in
place of words it is the paper's random-embedding baseline; with the squared distance, its L2 control.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from psdevise import store
from psdevise.config import option
from psdevise.data import features
from psdevise.data.features import Features
from psdevise.data.feed import FeedOptions, even_batches
from psdevise.models.core import CoreOptions
from psdevise.models.devise import DeViSE
from psdevise.models.losses import hinge_rank, squared_distance
from psdevise.phases.pictures import PictureSource, true_mask
from psdevise.phases.targets import Targets, widen
from psdevise.phases.visual import build_without_weights
from psdevise.server.layout import Group
from psdevise.server.ledger import cut
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask, Schedule, of_mean, schedule
from psdevise.worker.task import Figures

JointLoss = Literal["hinge", "hinge_sum", "l2"]


@dataclass(frozen=True)
class ProjectionOptions:
    epochs: int = option(10, "passes over the core's outputs", low=0)
    batch: int = option(128, "pictures in a mini-batch", low=1)
    slices: int = option(40, "slices per pass; at least ten per worker", low=1)
    schedule: Schedule = option("linear", "learning rate over the phase: constant, linear or cosine decay")
    optimizer: OptimizerOptions = option(OptimizerOptions(rate=0.05), "update on the shards")
    downpour: DownpourOptions = option(
        DownpourOptions(overlap=False),
        "how workers exchange with shards; a fetch ahead would lack the worker's own last step, which costs accuracy",
    )


@dataclass(frozen=True)
class FineTuningOptions:
    epochs: int = option(1, "passes over the pictures; 0 leaves the core as it is", low=0)
    core_rate: float = option(0.1, "learning rate of the core, as a share of the projection's", low=0.0)
    feed: FeedOptions = option(FeedOptions(), "batches and augmentation")
    slices: int = option(40, "slices per pass; at least ten per worker", low=1)
    schedule: Schedule = option("linear", "learning rate over the phase")
    optimizer: OptimizerOptions = option(OptimizerOptions(rate=0.01), "update on the shards")
    downpour: DownpourOptions = option(DownpourOptions(), "how workers exchange with shards")


@dataclass(frozen=True)
class JointOptions:
    loss: JointLoss = option(
        "hinge",
        "hinge: cut at the first violation in random order; hinge_sum: the whole sum; l2: squared distance",
    )
    false_terms: Literal["labels", "lexicon"] = option(
        "labels", "false terms: the other training labels, or with them every term of the lexicon"
    )
    margin: float = option(0.1, "margin of the hinge", low=0.0)
    normalise: bool = option(False, "make the projected picture a unit vector in the loss (the paper does not)")
    centre: bool = option(True, "subtract the mean of the training labels' vectors before they are made unit")
    label_vectors: Literal["fixed", "trained"] = option(
        "fixed",
        "trained: the projection's loss also moves the labels' vectors, while skip-gram goes on on the same tables"
        " (the paper's footnote 5)",
    )
    label_rate: float = option(1.0, "trained: learning rate of the labels' rows of the word table", low=0.0)
    text_passes: float = option(1.0, "trained: passes over the text beside the projection's epochs", low=0.0)
    projection: ProjectionOptions = option(ProjectionOptions(), "the first part: the projection alone")
    fine_tuning: FineTuningOptions = option(FineTuningOptions(), "the second part: core and projection")


class Drawn(Protocol):
    """The terms of one batch: `Targets`, or what is trained with them."""

    def draw(self, rng: np.random.Generator) -> Tensor:
        """One unit vector a class, and behind them what is false for every picture [C + L, E]."""


def unit_vectors(vectors: npt.NDArray[np.float32], mean: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """t/‖t‖ of each row [n, dim], after subtracting `mean` [dim] where there is one."""
    moved = vectors if mean is None else vectors - mean
    norm = np.linalg.norm(moved, axis=1, keepdims=True)
    return (moved / np.maximum(norm, 1e-12)).astype(np.float32)


def random_vectors(labels: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """The random-embedding baseline: independent directions, uniform on the sphere, float32 [labels, dim]."""
    return unit_vectors(np.random.default_rng([seed, 77]).standard_normal((labels, dim)).astype(np.float32), None)


@dataclass(frozen=True)
class BuildProjection:
    """Makes the task of the projection alone.

    Args:
        features: the core's outputs; pictures kept back for validation are not among them.
        targets: file of the training labels' terms (`Targets`).
    """

    features: str
    classes: tuple[str, ...]
    targets: str
    options: JointOptions

    def __call__(self) -> ModuleTask:
        targets = Targets.read(self.targets)
        return projection_task(self.features, self.classes, targets, targets.dim, self.options)


@dataclass(frozen=True)
class BuildFineTuning:
    """Makes the task of core and projection, from the projection's end."""

    pictures: PictureSource
    start: str
    targets: str
    core: CoreOptions
    options: JointOptions

    def __call__(self) -> ModuleTask:
        options = self.options.fine_tuning
        module = load_devise(self.start, self.core, self.options.normalise)
        targets = Targets.read(self.targets)
        feed = self.pictures.feed(self.core, options.feed)
        return ModuleTask(
            module,
            partial(joint_loss, targets=targets, options=self.options),
            feed.read,
            cut(feed.rows, options.slices),
            options.epochs,
            groups={"core.": "core"},
            rates={"default": Group(), "core": Group(rate=options.core_rate)},
            schedule=schedule(options.schedule),
            precision=options.downpour.precision,
            # Moving batch-norm statistics undo what the projection has learned: on validation pictures it cost
            # a tenth of the hits, seen and unseen.
            fixed_statistics=True,
        )


def projection_task(path: str, classes: tuple[str, ...], targets: Drawn, dim: int, options: JointOptions) -> ModuleTask:
    """M alone, [dim, width of the features in the file `path`]."""
    data, part = features.read(path, keep=classes), options.projection
    return ModuleTask(
        DeViSE(nn.Identity(), data.dim, dim, options.normalise),
        partial(joint_loss, targets=targets, options=options),
        FeatureReader(data, classes, part.batch).read,
        cut(data.rows, part.slices),
        part.epochs,
        schedule=schedule(part.schedule),
        precision=part.downpour.precision,
    )


def joint_loss(
    module: nn.Module, batch: Any, rng: np.random.Generator, targets: Drawn, options: JointOptions
) -> tuple[Tensor, Figures]:
    """The mean joint loss of a batch (pictures or features [B, …], true [B, classes])."""
    inputs, true = batch
    projected = module(inputs)
    vectors = targets.draw(rng).to(projected.device)
    true = widen(true, len(vectors))
    if options.loss == "l2":
        value = squared_distance(projected, vectors, true)
    else:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        mode: Literal["cut", "sum"] = "cut" if options.loss == "hinge" else "sum"
        value = hinge_rank(projected, vectors, true, generator, options.margin, mode)
    return of_mean(value, len(true))


def load_devise(path: str, core: CoreOptions, normalise: bool = False) -> DeViSE:
    """A DeViSE model from its safetensors file: names as in the module's own state."""
    tensors = load_safetensors(store.read_bytes(path))
    dim, width = tensors["projection.weight"].shape
    module = DeViSE(build_without_weights(core), width, dim, normalise)
    module.load_state_dict(tensors, strict=False)
    return module


class FeatureReader:
    """Batches of features [B, dim] and true [B, classes]."""

    def __init__(self, data: Features, classes: tuple[str, ...], batch: int) -> None:
        index = {name: i for i, name in enumerate(classes)}
        self._values, self._batch, self._classes = data.values, batch, len(classes)
        self._targets = [[index[v] for v in row if v in index] for row in data.labels]

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in even_batches(start + rng.permutation(stop - start), self._batch):
            mask = true_mask([self._targets[r] for r in rows], self._classes)
            yield torch.from_numpy(self._values[rows]), mask
