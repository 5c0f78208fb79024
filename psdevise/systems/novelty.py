"""Is a picture of a class that was trained on? Socher et al. 2013, section 4: Gaussians, and outlier probabilities.

Both look at mapped pictures f = θ x in the space of the word vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erf, logsumexp
from sklearn.neighbors import NearestNeighbors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gaussians:
    """One isometric Gaussian per seen class around its word vector, and how frequent the class is:

        σ_y² = Σ_{i of y} ‖f_i − w_y‖² / (n_y d),   log p(f) = log Σ_y P(y) N(f; w_y, σ_y² I)

    Attributes:
        means: [classes, d]; variance: [classes]; log_prior: [classes].
    """

    means: Floats
    variance: Floats
    log_prior: Floats

    def log_likelihood(self, mapped: npt.NDArray[np.floating]) -> Floats:
        """log p(f) of points [n, d] → [n]."""
        dim = self.means.shape[1]
        log_density = -0.5 * squared_distances(mapped, self.means) / self.variance
        log_density -= 0.5 * dim * np.log(2 * np.pi * self.variance)
        return np.asarray(logsumexp(log_density + self.log_prior, axis=1), np.float64)


def fit_gaussians(
    mapped: npt.NDArray[np.floating], targets: npt.NDArray[np.int64], vectors: npt.NDArray[np.floating]
) -> Gaussians:
    """From the mapped training points [n, d], their classes [n], and the classes' word vectors [classes, d]."""
    classes, dim = vectors.shape
    counts = np.bincount(targets, minlength=classes)
    squared = np.square(np.asarray(mapped, np.float64) - vectors[targets]).sum(axis=1)
    variance = np.bincount(targets, squared, classes) / (np.maximum(counts, 1) * dim)
    with np.errstate(divide="ignore"):  # a class without pictures has log P(y) = −∞
        log_prior = np.log(counts / counts.sum())
    return Gaussians(np.asarray(vectors, np.float64), np.maximum(variance, 1e-12), log_prior)


class LocalOutlierProbability:
    """LoOP (Kriegel et al., CIKM 2009) of new points among the training points:

        s(o) = λ √(mean_{q ∈ N(o)} d(o, q)²)           N(o): the k nearest training points, o itself left out
        PLOF(o) = s(o) / mean_{q ∈ N(o)} s(q) − 1       nPLOF = λ √(mean over training points of PLOF²)
        LoOP(o) = max(0, erf(PLOF(o) / (√2 nPLOF)))

    λ cancels in PLOF and stays in nPLOF. New points are no neighbours of each other.
    """

    def __init__(self, training: npt.NDArray[np.floating], neighbours: int = 20) -> None:
        self._search = NearestNeighbors(n_neighbors=min(neighbours, len(training) - 1)).fit(training)
        distances, found = self._search.kneighbors()  # of the training points themselves: without each one itself
        self._spread = np.sqrt(np.square(distances).mean(axis=1))
        self.training_plof = _ratio(self._spread, self._spread[found].mean(axis=1))
        self._scale = float(np.sqrt(np.square(self.training_plof).mean()))

    def plof(self, points: npt.NDArray[np.floating]) -> Floats:
        """PLOF of new points [n, d] → [n]; it does not depend on λ."""
        distances, found = self._search.kneighbors(points)
        return _ratio(np.sqrt(np.square(distances).mean(axis=1)), self._spread[found].mean(axis=1))

    def probability(self, plof: Floats, extent: float = 3.0) -> Floats:
        """LoOP of points with this PLOF, for λ = `extent`, from 0 to 1."""
        scale = max(extent * self._scale, 1e-12)
        return np.maximum(0.0, erf(plof / (np.sqrt(2) * scale)))


def squared_distances(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> Floats:
    """‖a_i − b_j‖² of [n, d] and [m, d] → [n, m], in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squared = np.square(a).sum(axis=1)[:, None] - 2 * a @ b.T + np.square(b).sum(axis=1)
    return np.maximum(squared, 0.0)


def _ratio(own: Floats, around: Floats) -> Floats:
    """own / around − 1; 0 where all lie at one place."""
    return np.where(around > 0, own / np.maximum(around, 1e-300), 1.0) - 1.0
