"""Batches of pictures for training: read, decoded once, cropped and flipped anew each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from psdevise.config import option
from psdevise.data.pictures import PictureTable, decode, open_rgb
from psdevise.errors import DataError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FeedOptions:
    batch: int = option(128, "pictures in a mini-batch", low=1)
    augment: Literal["none", "shift", "resize"] = option(
        "shift",
        "shift: random crop after padding, and flip (small pictures); resize: random crop of 8 to 100 % of"
        " the area, resized, and flip (large ones); none: as they are",
    )
    padding: int = option(4, "shift: pixels of padding on each side", low=0)
    cache_mb: float = option(512.0, "decoded pictures kept in memory by each worker, in MB", low=0.0)


class PictureFeed:
    """
    Args:
        index: label → class; rows without one of these labels are skipped.
        keep: bool [rows]: rows that may be read, None for all.
    """

    def __init__(
        self,
        table: PictureTable,
        size: int,
        index: Mapping[str, int],
        options: FeedOptions,
        keep: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._table, self._size, self._index, self._options = table, size, dict(index), options
        targets = [tuple(sorted({self._index[v] for v in row if v in self._index})) for row in table.labels()]
        self._targets = [t if keep is None or keep[i] else () for i, t in enumerate(targets)]
        self._cache: OrderedDict[tuple[int, int], dict[int, Pixels]] = OrderedDict()
        self._cached = 0
        self.broken: dict[int, str] = {}
        self.rows = table.rows

    @property
    def usable(self) -> int:
        """Rows with a class."""
        return sum(bool(t) for t in self._targets)

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[tuple[Pixels, list[tuple[int, ...]]]]:
        """Batches of rows [start, stop) in an order drawn from `rng`: pictures uint8 [B, size, size, 3] and
        each one's class numbers. Broken pictures are left out and noted in `broken`."""
        rows = np.array([r for r in range(start, stop) if self._targets[r]], np.int64)
        if not len(rows):
            return
        decoded = self._decoded(start, stop)
        for part in even_batches(rng.permutation(rows), self._options.batch):
            chosen = [int(r) for r in part if int(r) in decoded]
            if not chosen:
                continue
            if self._options.augment == "resize":
                pictures = np.stack([self._resized(self._encoded[r], rng) for r in chosen])
            else:
                pictures = np.stack([decoded[r] for r in chosen])
                if self._options.augment == "shift":
                    pictures = shift_and_flip(pictures, self._options.padding, rng)
            yield pictures, [self._targets[r] for r in chosen]

    def in_order(self, start: int, stop: int) -> tuple[Pixels, list[int]]:
        """Rows [start, stop) as they are: pictures uint8 [n, size, size, 3] and their row numbers."""
        decoded = self._decoded(start, stop)
        rows = sorted(decoded)
        if not rows:
            return np.zeros((0, self._size, self._size, 3), np.uint8), []
        return np.stack([decoded[r] for r in rows]), rows

    def _decoded(self, start: int, stop: int) -> dict[int, Pixels]:
        if (start, stop) in self._cache:
            self._cache.move_to_end((start, stop))
            return self._cache[start, stop]
        self._encoded: dict[int, bytes] = {}
        found: dict[int, Pixels] = {}
        for picture in self._table.read(start, stop):
            if not self._targets[picture.row]:
                continue
            try:
                if self._options.augment == "resize":
                    open_rgb(picture.data)
                    self._encoded[picture.row] = picture.data
                    found[picture.row] = np.zeros((0,), np.uint8)
                else:
                    found[picture.row] = decode(picture.data, self._size)
            except DataError as e:
                self.broken[picture.row] = str(e)
        weight = sum(p.nbytes for p in found.values())
        if self._options.augment != "resize" and self._cached + weight <= self._options.cache_mb * 1e6:
            self._cache[start, stop] = found
            self._cached += weight
        return found

    def _resized(self, data: bytes, rng: np.random.Generator) -> Pixels:
        """A random part of 8 to 100 % of the area, of aspect 3/4 to 4/3, resized to the input, or mirrored."""
        image = open_rgb(data)
        width, height = image.size
        area, aspect = (
            width * height * rng.uniform(0.08, 1.0),
            np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))),
        )
        w = int(min(width, max(1, round(np.sqrt(area * aspect)))))
        h = int(min(height, max(1, round(np.sqrt(area / aspect)))))
        left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        size = (self._size, self._size)
        part = image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        pixels = np.asarray(part, np.uint8)
        return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def even_batches(rows: npt.NDArray[np.int64], batch: int) -> list[npt.NDArray[np.int64]]:
    """Cuts [n] into the fewest parts of at most `batch`, of equal size but for one: a rest of a few rows
    would make a step as large as the others', and move batch-norm statistics as far."""
    return np.array_split(rows, -(-len(rows) // batch)) if len(rows) else []


def shift_and_flip(pictures: Pixels, padding: int, rng: np.random.Generator) -> Pixels:
    """Each picture [B, H, W, 3] moved by up to `padding` pixels each way (black comes in), half of them
    mirrored."""
    n, height, width, _ = pictures.shape
    padded = np.zeros((n, height + 2 * padding, width + 2 * padding, 3), np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = pictures
    moved = np.empty_like(pictures)
    tops, lefts = rng.integers(0, 2 * padding + 1, (2, n))
    flips: npt.NDArray[np.bool_] = np.less(rng.random(n), 0.5)
    for i in range(n):
        part = padded[i, tops[i] : tops[i] + height, lefts[i] : lefts[i] + width]
        moved[i] = part[:, ::-1] if flips[i] else part
    return moved
