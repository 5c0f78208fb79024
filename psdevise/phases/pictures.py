"""Which pictures a phase trains on: a table, the classes, and what is kept back for validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psdevise.data.feed import FeedOptions, PictureFeed
from psdevise.data.pictures import Columns, PictureTable
from psdevise.models.core import CoreOptions, normalise


@dataclass(frozen=True)
class PictureSource:
    """
    Args:
        classes: labels that are trained on, in the order of their class numbers.
        validation_from: rows whose number in the source table is at or above this choose, and train nothing.
    """

    table: str
    columns: Columns
    classes: tuple[str, ...]
    validation_from: int

    def feed(self, core: CoreOptions, options: FeedOptions) -> TrainingFeed:
        return TrainingFeed(self, core, options)


class TrainingFeed:
    """Batches as the losses take them: pictures float [B, 3, size, size], true bool [B, classes]."""

    def __init__(self, source: PictureSource, core: CoreOptions, options: FeedOptions) -> None:
        table = PictureTable(source.table, source.columns)
        index = {name: i for i, name in enumerate(source.classes)}
        keep = table.source_rows() < source.validation_from
        self._core, self._classes = core, len(index)
        self._feed = PictureFeed(table, core.size, index, options, keep)
        self.rows = table.rows

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for pictures, targets in self._feed.read(start, stop, rng):
            yield normalise(pictures, self._core), true_mask(targets, self._classes)


def true_mask(targets: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Class numbers of each picture → bool [B, classes]."""
    mask = torch.zeros(len(targets), classes, dtype=torch.bool)
    for i, numbers in enumerate(targets):
        mask[i, list(numbers)] = True
    return mask
