"""A head on frozen features as a task of the Downpour loop: softmax, WSABIE, cosine, or a user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from psdevise.data import features
from psdevise.phases.joint import FeatureReader, ProjectionOptions
from psdevise.server.ledger import cut
from psdevise.systems.recipe import Learned, Lesson
from psdevise.worker.module import Loss, ModuleTask, schedule


@dataclass(frozen=True)
class BuildHead:
    """Makes the task.

    Args:
        make: features' width → the module, its parameters drawn after `torch.manual_seed(seed)`.
        loss: (module, (values [B, width], true bool [B, classes]), generator) → mean loss and figures.
    """

    features: str
    classes: tuple[str, ...]
    make: Callable[[int], nn.Module]
    loss: Loss
    options: ProjectionOptions
    seed: int

    def __call__(self) -> ModuleTask:
        data = features.read(self.features, keep=self.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = self.make(data.dim)
        return ModuleTask(
            module,
            self.loss,
            FeatureReader(data, self.classes, self.options.batch).read,
            cut(data.rows, self.options.slices),
            self.options.epochs,
            schedule=schedule(self.options.schedule),
        )


def learn(lesson: Lesson, make: Callable[[int], nn.Module], loss: Loss, options: ProjectionOptions) -> Learned:
    """Trains a head on the lesson's features."""
    build = BuildHead(lesson.features, lesson.seen, make, loss, options, lesson.known.seed)
    return dict(lesson.train(build, options, lesson.folder))
