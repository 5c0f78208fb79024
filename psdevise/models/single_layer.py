"""Single-layer unsupervised features of small pictures (Coates, Lee and Ng 2011; Coates and Ng 2011).

Patches of 6×6×3 at every position are normalised, whitened and coded with a dictionary; the codes are summed over the
four quadrants of the picture. No label takes part, so they can be fitted on whatever pictures may be seen. Socher et
al. 2013 use them with 1,600 bases and both signs: 1,600 · 2 · 4 = 12,800 values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from psdevise.config import option

Floats = npt.NDArray[np.float32]
BATCH = 50


@dataclass(frozen=True)
class SingleLayerOptions:
    coding: Literal["triangle", "omp1"] = option(
        "omp1",
        "omp1: orthogonal matching pursuit with one atom, soft threshold; triangle: k-means, triangle activation",
    )
    bases: int = option(1600, "atoms of the dictionary", low=2)
    patch: int = option(6, "side of a patch in pixels", low=2)
    patches: int = option(400_000, "patches that whitening and dictionary are fitted on", low=100)
    iterations: int = option(15, "passes over these patches (the authors make 50)", low=1)
    threshold: float = option(0.25, "omp1: α of the soft threshold", low=0.0)

    @property
    def dim(self) -> int:
        return self.bases * 4 * (2 if self.coding == "omp1" else 1)


@dataclass(frozen=True)
class SingleLayer:
    """
    Attributes:
        whitener: P float32 [d, d], d = patch² · 3, and `mean` [d] of the normalised patches.
        dictionary: D float32 [bases, d]; unit rows for omp1, centroids for triangle.
    """

    options: SingleLayerOptions
    mean: Floats
    whitener: Floats
    dictionary: Floats

    def codes(self, pictures: npt.NDArray[np.uint8], on_progress: Callable[[int, int], None] | None = None) -> Floats:
        """uint8 [n, H, W, 3] → float32 [n, dim]: for each atom the sum over each quadrant (rows first).

            z = P (x − μ),   omp1: max(0, Dz − α), max(0, −Dz − α);   triangle: max(0, mean_k ‖z − c_k‖ − ‖z − c_k‖)

        x is a patch with (x − mean) / √(var + 10).
        """
        found = np.empty((len(pictures), self.options.dim), np.float32)
        mean, dictionary = torch.from_numpy(self.mean), torch.from_numpy(self.dictionary)
        whitener = torch.from_numpy(self.whitener)
        projector = dictionary @ whitener
        offset = projector @ mean
        for start in range(0, len(pictures), BATCH):
            rows = slice(start, start + BATCH)
            patches, side = _patches(pictures[rows], self.options.patch)
            if self.options.coding == "omp1":
                dots = patches @ projector.T - offset
                code = torch.cat([dots - self.options.threshold, -dots - self.options.threshold], dim=1)
            else:
                white = (patches - mean) @ whitener.T
                squares = white.square().sum(1, keepdim=True) - 2 * white @ dictionary.T + dictionary.square().sum(1)
                distance = squares.clamp_min_(0).sqrt_()
                code = distance.mean(dim=1, keepdim=True) - distance
            found[rows] = _pool(code.clamp_min_(0), side).numpy()
            if on_progress is not None:
                on_progress(min(start + BATCH, len(pictures)), len(pictures))
        return found


def fit(pictures: npt.NDArray[np.uint8], options: SingleLayerOptions, rng: np.random.Generator) -> SingleLayer:
    """Whitening (ZCA with ε = .1) and dictionary from random patches of `pictures` uint8 [n, H, W, 3]."""
    patches = _normalised(_random_patches(pictures, options, rng))
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.asarray(np.cov(patches, rowvar=False), np.float64))
    whitener = ((vectors / np.sqrt(np.maximum(values, 0) + 0.1)) @ vectors.T).astype(np.float32)
    white = (patches - mean) @ whitener
    learn = _one_atom if options.coding == "omp1" else _centroids
    return SingleLayer(options, mean, whitener, learn(white, options, rng))


class Standard:
    """(v − mean) / √(var + .01) per feature, from the training pictures alone."""

    def __init__(self, values: Floats) -> None:
        self._mean = values.mean(axis=0)
        self._scale = np.sqrt(values.var(axis=0) + np.float32(0.01))

    def __call__(self, values: Floats) -> Floats:
        return (values - self._mean) / self._scale


def _random_patches(
    pictures: npt.NDArray[np.uint8], options: SingleLayerOptions, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    size = options.patch
    picture = rng.integers(len(pictures), size=options.patches)
    top = rng.integers(pictures.shape[1] - size + 1, size=options.patches)
    left = rng.integers(pictures.shape[2] - size + 1, size=options.patches)
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    return windows[picture, top, left].reshape(options.patches, -1)


def _normalised(patches: npt.NDArray[np.uint8]) -> Floats:
    values = patches.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.sqrt(values.var(axis=1, ddof=1, keepdims=True) + np.float32(10))
    return values


def _one_atom(white: Floats, options: SingleLayerOptions, rng: np.random.Generator) -> Floats:
    """Gain-shape vector quantisation: each patch goes to the atom of highest |dot|, and an atom becomes the unit sum of
    its patches, each times its dot. Unused atoms are drawn anew."""
    atoms = _unit(rng.standard_normal((options.bases, white.shape[1])).astype(np.float32))
    for _ in range(options.iterations):
        sums = np.zeros_like(atoms)
        for part in _parts(white):
            dots = part @ atoms.T
            best = np.abs(dots).argmax(axis=1)
            _add_rows(sums, best, part * dots[np.arange(len(part)), best][:, None])
        unused = ~sums.any(axis=1)
        sums[unused] = rng.standard_normal((int(unused.sum()), white.shape[1]))
        atoms = _unit(sums)
    return atoms


def _centroids(white: Floats, options: SingleLayerOptions, rng: np.random.Generator) -> Floats:
    """Lloyd's k-means from small random centroids; unused ones are drawn anew from the patches."""
    centroids = (0.1 * rng.standard_normal((options.bases, white.shape[1]))).astype(np.float32)
    for _ in range(options.iterations):
        sums, counts = np.zeros_like(centroids), np.zeros(options.bases, np.int64)
        half = 0.5 * np.square(centroids).sum(axis=1)
        for part in _parts(white):
            best = (part @ centroids.T - half).argmax(axis=1)
            _add_rows(sums, best, part)
            counts += np.bincount(best, minlength=options.bases)
        centroids = np.asarray(sums / np.maximum(counts, 1)[:, None], np.float32)
        unused = counts == 0
        centroids[unused] = white[rng.integers(len(white), size=int(unused.sum()))]
    return centroids


def _add_rows(sums: Floats, groups: npt.NDArray[np.int64], values: Floats) -> None:
    order = np.argsort(groups, kind="stable")
    present, first = np.unique(groups[order], return_index=True)
    sums[present] += np.add.reduceat(values[order], first, axis=0)


def _parts(values: Floats, rows: int = 8192) -> list[Floats]:
    return [values[start : start + rows] for start in range(0, len(values), rows)]


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


def _patches(pictures: npt.NDArray[np.uint8], size: int) -> tuple[torch.Tensor, int]:
    """Normalised patches [n · side², size² · 3] at all side² positions."""
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    n, side = windows.shape[:2]
    return torch.from_numpy(_normalised(windows.reshape(n * side * side, -1))), side


def _pool(codes: torch.Tensor, side: int) -> torch.Tensor:
    """Sums over the quadrants: [n · side², c] → [n, 4 c]; of an odd side the first half is the larger."""
    grid = codes.reshape(-1, side, side, codes.shape[1])
    half = (side + 1) // 2
    tall = torch.stack([grid[:, :half].sum(1), grid[:, half:].sum(1)], dim=1)
    return torch.stack([tall[:, :, :half].sum(2), tall[:, :, half:].sum(2)], dim=2).flatten(1)
