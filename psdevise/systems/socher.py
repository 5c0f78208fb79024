"""Zero-shot learning through cross-modal transfer (Socher et al., NIPS 2013).

A linear map θ takes features to word vectors; a picture that is an outlier among the mapped training pictures gets the
nearest unseen class's word vector, any other the answer of a softmax on the features:

    p(y | x) = (1 − p_u) softmax(W x)_y  for seen y,   p_u N(f; w_y) / Σ_unseen  for unseen y,   f = θ x

p_u is LoOP, or 0 and 1 by a threshold on the marginal likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from psdevise.systems import Scores
from psdevise.systems.devise import ridge
from psdevise.systems.linear import probabilities
from psdevise.systems.novelty import Gaussians, LocalOutlierProbability, fit_gaussians, squared_distances
from psdevise.systems.recipe import Known, Learned, Lesson, Values, columns

KEPT = 4000  # training points that LoOP looks among
CERTAIN = 1 - 1e-6  # a gate that is quite shut would make all that is behind it equal


@dataclass(frozen=True)
class Socher:
    """
    Args:
        penalty: λ of the map, as `systems.devise.Ridge` has it.
        novelty: loop: p_u = LoOP with λ = `extent`; threshold: p_u = 1 below the `quantile` of the training pictures'
            log-likelihoods.
    """

    penalty: float = 0.03
    novelty: Literal["loop", "threshold"] = "loop"
    extent: float = 3.0
    quantile: float = 0.3
    name: str = "socher"
    variant: str = "default"
    needs: tuple[str, ...] = ("softmax",)

    def fit(self, lesson: Lesson) -> Learned:
        vectors = lesson.known.matrix(lesson.seen)
        weight = ridge(lesson.values, vectors[lesson.targets], self.penalty)
        mapped = lesson.values @ weight.T
        gaussians = fit_gaussians(mapped, lesson.targets, vectors)
        threshold = np.quantile(gaussians.log_likelihood(mapped), self.quantile)
        kept = np.random.default_rng([lesson.known.seed, 47]).permutation(len(mapped))[:KEPT]
        softmax = {f"softmax.{name}": value for name, value in lesson.fitted["softmax"].items()}
        return {
            "projection.weight": weight,
            "mapped": mapped[kept],
            "variance": gaussians.variance,
            "log_prior": gaussians.log_prior,
            "threshold": np.array(threshold),
            **softmax,
        }

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        mapped = values @ learned["projection.weight"].T
        unseen = self._novel(learned, known, mapped)[:, None]
        softmax = {name.removeprefix("softmax."): v for name, v in learned.items() if name.startswith("softmax.")}
        found = columns((1 - unseen) * probabilities(softmax, values), known.seen, labels)
        new = [i for i, label in enumerate(labels) if label not in known.seen]
        if new:
            spread = float(learned["variance"].mean())
            found[:, new] = unseen * nearest(mapped, known.matrix([labels[i] for i in new]), spread)
        return found

    def _novel(self, learned: Learned, known: Known, mapped: Values) -> npt.NDArray[np.float64]:
        if self.novelty == "loop":
            model = LocalOutlierProbability(learned["mapped"])
            return np.clip(model.probability(model.plof(mapped), self.extent), 1 - CERTAIN, CERTAIN)
        vectors = known.matrix(known.seen).astype(np.float64)
        gaussians = Gaussians(vectors, learned["variance"], learned["log_prior"])
        below = gaussians.log_likelihood(mapped) < float(learned["threshold"])
        return np.where(below, CERTAIN, 1 - CERTAIN)


def nearest(mapped: npt.NDArray[np.floating], vectors: npt.NDArray[np.floating], variance: float) -> Scores:
    """N(f; w_y, σ² I) / Σ_y over unseen classes of one common variance: the nearest vector is the likeliest."""
    logits = -0.5 * squared_distances(mapped, vectors) / variance
    logits -= logits.max(axis=1, keepdims=True)
    density = np.exp(logits)
    return np.asarray(density / density.sum(axis=1, keepdims=True), np.float32)
