"""The visual phase: a convolutional core with a softmax layer over the seen classes (Krizhevsky et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from psdevise import store
from psdevise.config import option
from psdevise.data.feed import FeedOptions
from psdevise.models.core import Core, CoreOptions
from psdevise.models.core import build as build_core
from psdevise.models.devise import Softmax
from psdevise.models.losses import cross_entropy
from psdevise.phases.pictures import PictureSource
from psdevise.server.layout import Group
from psdevise.server.ledger import cut
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask, Schedule, of_mean, schedule
from psdevise.worker.task import Figures


@dataclass(frozen=True)
class VisualOptions:
    core: CoreOptions = option(CoreOptions(), "the convolutional core")
    epochs: int = option(12, "passes over the pictures", low=1)
    feed: FeedOptions = option(FeedOptions(), "batches and augmentation")
    smoothing: float = option(0.0, "label smoothing: share of the target spread over all classes", low=0.0, high=0.9)
    weight_decay: float = option(0.0, "L2 penalty, added to the gradient on the shards", low=0.0)
    slices: int = option(40, "slices per pass; at least ten per worker", low=1)
    schedule: Schedule = option("linear", "learning rate over the phase: constant, linear or cosine decay")
    warmup: float = option(0.0, "share of the phase over which the learning rate rises from 0", low=0.0, high=0.9)
    optimizer: OptimizerOptions = option(OptimizerOptions(), "update on the shards")
    downpour: DownpourOptions = option(DownpourOptions(), "how workers exchange with shards")


@dataclass(frozen=True)
class BuildVisual:
    """Makes the task on a worker."""

    pictures: PictureSource
    options: VisualOptions
    seed: int

    def __call__(self) -> ModuleTask:
        options = self.options
        core = build_core(options.core, self.seed)
        torch.manual_seed(self.seed)
        if options.core.frozen:
            core.requires_grad_(False)
        module = Softmax(core, core.features, len(self.pictures.classes))
        feed = self.pictures.feed(options.core, options.feed)
        return ModuleTask(
            module,
            partial(softmax_loss, smoothing=options.smoothing),
            feed.read,
            cut(feed.rows, options.slices),
            options.epochs,
            rates={"default": Group(weight_decay=options.weight_decay)},
            schedule=schedule(options.schedule, options.warmup),
            precision=options.downpour.precision,
        )


def softmax_loss(module: nn.Module, batch: Any, rng: np.random.Generator, smoothing: float) -> tuple[Tensor, Figures]:
    """Cross-entropy of pictures [B, 3, H, W] and true [B, classes]; counts right answers beside it."""
    pictures, true = batch
    logits = module(pictures)
    value = cross_entropy(logits, true, smoothing)
    right = true.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
    return of_mean(value, len(true), right=float(right))


def load_softmax(path: str, core: CoreOptions) -> Softmax:
    """The visual model from its safetensors file."""
    tensors = load_safetensors(store.read_bytes(path))
    classes, features = tensors["head.weight"].shape
    module = Softmax(build_without_weights(core), features, classes)
    module.load_state_dict(tensors, strict=False)
    return module.eval()


def build_without_weights(core: CoreOptions) -> Core:
    """The core's shape; its weights come from a run's own file, not from the ones it started with."""
    return build_core(replace(core, frozen=False, weights=None))
