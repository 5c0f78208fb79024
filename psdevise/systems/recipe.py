"""A system in a single file: what it learns from a core's outputs, and how it then scores any labels.

class Prototypes:                                   # mymodel.py; `--system mymodel:Prototypes`
    name, variant, needs = "prototypes", "default", ()

    def fit(self, lesson):
        return {"mean": np.stack([lesson.values[lesson.targets == i].mean(axis=0) for i in range(len(lesson.seen))])}

    def score(self, learned, known, values, labels):
        found = -np.square(values[:, None] - learned["mean"]).sum(axis=2)
        return columns(found, known.seen, labels)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from psdevise import config, store
from psdevise.data.features import Features, read
from psdevise.errors import LabelError
from psdevise.phases.joint import ProjectionOptions
from psdevise.systems import Scores
from psdevise.worker.task import Task

Values = npt.NDArray[np.float32]
Learned = dict[str, npt.NDArray[Any]]
"""What a system keeps of its training: arrays by name."""
Train = Callable[[Callable[[], Task], ProjectionOptions, str], Mapping[str, npt.NDArray[np.float32]]]
"""(makes the task, its options, folder for what is under way) → parameters: Downpour on some host."""


@dataclass(frozen=True)
class Known:
    """What every system is told about labels.

    Attributes:
        seen: the training labels, in order.
        vectors: label → unit vector float32 [dim], of seen and unseen ones.
        seed: of everything random.
    """

    seen: tuple[str, ...]
    vectors: Mapping[str, Values]
    seed: int

    def matrix(self, labels: Sequence[str]) -> Values:
        """The labels' unit vectors [len(labels), dim].

        Raises:
            LabelError: one of them has no vector.
        """
        missing = [name for name in labels if name not in self.vectors]
        if missing:
            raise LabelError(f"no vector for {', '.join(map(repr, missing[:5]))}", where="labels")
        return np.stack([self.vectors[name] for name in labels])


@dataclass(frozen=True)
class Lesson:
    """What a system may learn from: pictures of seen classes only.

    Attributes:
        features: Parquet file of the core's outputs (`psdevise.data.features`).
        folder: where it may put files while it learns.
        train: trains a task by Downpour; a closed form does without.
        fitted: what the systems in `needs` have learned.
    """

    known: Known
    features: str
    folder: str
    train: Train
    fitted: Mapping[str, Learned] = field(default_factory=dict)

    @property
    def seen(self) -> tuple[str, ...]:
        return self.known.seen

    @cached_property
    def _data(self) -> Features:
        return read(self.features, keep=self.seen)

    @property
    def values(self) -> Values:
        """float32 [n, width]."""
        return self._data.values

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """Of each picture, as the file has them [n]."""
        return self._data.labels

    @cached_property
    def targets(self) -> npt.NDArray[np.int64]:
        """Each picture's (first) class as an index into `seen` [n]."""
        index = {name: i for i, name in enumerate(self.seen)}
        return np.array([next(index[v] for v in row if v in index) for row in self._data.labels], np.int64)

    def path(self, name: str) -> str:
        return store.join(self.folder, name)


class Recipe(Protocol):
    """A system before it has learned. Instances are cheap and hold options only."""

    @property
    def name(self) -> str: ...

    @property
    def variant(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of systems whose default variants it builds on."""

    def fit(self, lesson: Lesson) -> Learned: ...

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        """The core's outputs [n, width] → float32 [n, len(labels)], higher is better; −inf for what it cannot name."""


def columns(scores: npt.NDArray[Any], have: Sequence[str], labels: Sequence[str]) -> Scores:
    """Scores [n, len(have)] rearranged for `labels`; −inf where a label is not among `have`."""
    index = {name: i for i, name in enumerate(have)}
    found = np.full((len(scores), len(labels)), -np.inf, np.float32)
    known = [(i, index[name]) for i, name in enumerate(labels) if name in index]
    if known:
        to, of = map(list, zip(*known, strict=True))
        found[:, to] = scores[:, of]
    return found


def fingerprint(recipe: Recipe) -> dict[str, Any]:
    """What of a system decides on what it learns: its options, or the source of a user's own."""
    recipe = getattr(recipe, "own", recipe)
    if is_dataclass(recipe) and not isinstance(recipe, type):
        return {"system": type(recipe).__qualname__, **config.plain(recipe)}
    return {"system": type(recipe).__qualname__, "source": store.key_of(inspect.getsource(type(recipe)))}
