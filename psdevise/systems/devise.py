"""DeViSE on frozen features, and what the paper compares it with by changing one thing: random vectors, squared
distance (Frome et al. 2013, section 3.3 and Tables 1 to 3).

    score(picture, label) = M v · t / ‖M v‖
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from psdevise.labels.vectors import unit_rows
from psdevise.phases.joint import BuildProjection, JointOptions, ProjectionOptions, random_vectors
from psdevise.phases.targets import Targets
from psdevise.server.optimizer import OptimizerOptions
from psdevise.systems import Scores
from psdevise.systems.recipe import Known, Learned, Lesson, Values

# Rates of all systems: the best on validation pictures of the first split, among steps of about a factor of 3.
PROJECTION = ProjectionOptions(epochs=6, optimizer=OptimizerOptions(rate=0.01))


@dataclass(frozen=True)
class Devise:
    """M trained by the product's own projection task.

    Args:
        options: loss, margin, and how it is trained.
        draw: None: the labels' word vectors; a number: random directions in their place, that draw of them.
    """

    options: JointOptions = JointOptions(projection=PROJECTION)
    name: str = "devise"
    variant: str = "default"
    draw: int | None = None
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        path = lesson.path("targets.safetensors")
        Targets(self.vectors(lesson.known, lesson.seen)).write(path)
        build = BuildProjection(lesson.features, lesson.seen, path, self.options)
        return dict(lesson.train(build, self.options.projection, lesson.folder))

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        return unit_rows(values @ learned["projection.weight"].T) @ self.vectors(known, labels).T

    def vectors(self, known: Known, labels: Sequence[str]) -> Values:
        """The labels' vectors as this system uses them [len(labels), dim]."""
        if self.draw is None:
            return known.matrix(labels)
        names = list(known.vectors)
        drawn = random_vectors(len(names), len(known.matrix(names[:1])[0]), 1000 * known.seed + self.draw)
        return drawn[[names.index(label) for label in labels]]


def random(draw: int = 0) -> Devise:
    """The random-embedding baseline: DeViSE with directions that mean nothing."""
    return Devise(name="random", variant="default" if draw == 0 else f"draw {draw}", draw=draw)


def margin(value: float) -> Devise:
    """Footnote 3: a wide range of margins works."""
    return Devise(JointOptions(margin=value, projection=PROJECTION), variant=f"margin {value:g}")


def l2() -> Devise:
    """The squared distance in place of the rank loss, trained alike."""
    options = replace(PROJECTION, optimizer=OptimizerOptions(rate=0.005))
    return Devise(JointOptions(loss="l2", projection=options), name="l2", variant="sgd")


@dataclass(frozen=True)
class Ridge:
    """The squared distance's closed form: M = Tᵀ V (Vᵀ V + λ n I)⁻¹, in float64; no training.

    Args:
        penalty: λ, in units of the features' mean square (of standardised ones about 1).
    """

    penalty: float = 0.03
    name: str = "l2"
    variant: str = "default"
    needs: tuple[str, ...] = ()

    def fit(self, lesson: Lesson) -> Learned:
        targets = lesson.known.matrix(lesson.seen)[lesson.targets]
        return {"projection.weight": ridge(lesson.values, targets, self.penalty)}

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        return unit_rows(values @ learned["projection.weight"].T) @ known.matrix(labels).T


def ridge(values: Values, targets: Values, penalty: float) -> Values:
    """argmin_M Σ‖M v − t‖² + λ n s ‖M‖², s the mean square of the features: [n, width], [n, dim] → [dim, width]."""
    width = values.shape[1]
    gram = (values.T @ values).astype(np.float64)
    gram[np.diag_indices(width)] += penalty * np.trace(gram) / width
    return np.ascontiguousarray(np.linalg.solve(gram, (values.T @ targets).astype(np.float64)).T, np.float32)
