"""A recipe that has learned, on a core: a System like the others, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psdevise.systems import Pictures, Scores
from psdevise.systems.recipe import Known, Learned, Recipe, Values


class Finished:
    """
    Args:
        core: pictures uint8 [n, size, size, 3] → its outputs float32 [n, width].
    """

    def __init__(self, recipe: Recipe, learned: Learned, known: Known, core: Callable[[Pictures], Values]) -> None:
        self.name, self.variant = recipe.name, recipe.variant
        self._recipe, self._learned, self._known, self._core = recipe, learned, known, core

    def score(self, pictures: Pictures, labels: Sequence[str]) -> Scores:
        return self.score_values(self._core(pictures), labels)

    def score_values(self, values: Values, labels: Sequence[str]) -> Scores:
        """The same from the core's outputs [n, width], where they were computed before."""
        return self._recipe.score(self._learned, self._known, values, labels)
