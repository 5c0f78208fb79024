"""The joint loss carried into the word vectors, while the language model goes on (Frome et al. 2013, footnote 5).

One task of two kinds of batches on the same shards: pictures, whose gradient goes to M and to the rows of `input` that
the labels' vectors are made of, and blocks of text, which train all tables as the language phase does. In every slice
of pictures they alternate evenly. The loss sees label c's vector as

    t_c = (r_c − m) / ‖r_c − m‖,    r_c = Σ_i w_i input[row_i],    m = mean over the classes of r  (`joint.centre`)

and is differentiated through all of it, the mean too. A row steps as in a block of text: with row-wise Adagrad by the
accumulator that the text uses, so that a word of much text is moved less; else by plain SGD. The text goes on at
the rate at which the language phase ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from torch import Tensor

from psdevise import store
from psdevise.errors import DataError
from psdevise.labels import vectors as word_vectors
from psdevise.labels.composition import Composition
from psdevise.models.skipgram import EPS, SQUARES, Block
from psdevise.phases.joint import JointOptions, projection_task
from psdevise.phases.language import BuildLanguage, LanguageTask
from psdevise.phases.targets import one_each
from psdevise.server.protocol import Array, Rows
from psdevise.worker.module import ModuleTask
from psdevise.worker.replica import Replica
from psdevise.worker.task import Figures, TableGradient

WORDS = "input"


class RowTargets:
    """The classes' terms as functions of the rows that they are made of.

    Attributes:
        ids: the rows [n], sorted, without repeats.
        rows: their values float32 [n, E], to be set before `draw`; a gradient flows back to them.
    """

    def __init__(self, composition: Composition, centre: bool) -> None:
        ids, place = np.unique(composition.rows, return_inverse=True)
        self.ids: Rows = ids
        self.rows = torch.zeros(0)
        self._place, self._term = torch.from_numpy(place), torch.from_numpy(composition.term)
        self._weights = torch.from_numpy(composition.weights)[:, None]
        self._owner, self._centre = composition.owner, centre
        self._first = torch.from_numpy(np.unique(composition.owner, return_index=True)[1])
        self._several = len(self._first) < len(composition.owner)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """One term of each class, as a unit vector [C, E]."""
        terms = torch.zeros(len(self._owner), self.rows.shape[1], dtype=self.rows.dtype)
        terms = terms.index_add(0, self._term, self._weights.to(self.rows.dtype) * self.rows[self._place])
        mean = terms[self._first].mean(dim=0) if self._centre else 0.0
        chosen = terms[torch.from_numpy(one_each(self._owner, rng))] if self._several else terms
        return torch.nn.functional.normalize(chosen - mean, dim=1, eps=1e-12)


@dataclass(frozen=True)
class BuildCarried:
    """Makes the task on a worker.

    Args:
        features: the core's outputs; pictures kept back for validation are not among them.
        composition: file of the classes' `Composition`.
        vectors, tables: files of the language phase's end.
    """

    features: str
    classes: tuple[str, ...]
    composition: str
    language: BuildLanguage
    vectors: str
    tables: str
    options: JointOptions

    def __call__(self) -> CarriedTask:
        language = self.language()
        targets = RowTargets(Composition.read(self.composition), self.options.centre)
        dim = language.model.tables[WORDS][1]
        pictures = projection_task(self.features, self.classes, targets, dim, self.options)
        return CarriedTask(pictures, language, targets, self)

    def start(self) -> dict[str, Array]:
        """The tables as the language phase left them."""
        if not store.exists(self.tables):
            raise DataError(
                "the language phase kept its vectors alone, from which it cannot go on",
                where=self.tables,
                mend="train it again: psdevise run … --from language",
            )
        held: dict[str, Array] = load_safetensors(store.read_bytes(self.tables))
        return held | {WORDS: word_vectors.load(self.vectors).matrix}


class CarriedTask:
    """A Task (`psdevise.worker.task`) made of two: pictures and text in turn."""

    def __init__(
        self, pictures: ModuleTask, language: LanguageTask, targets: RowTargets, made_from: BuildCarried
    ) -> None:
        self._pictures, self._language, self._targets, self._from = pictures, language, targets, made_from
        self._options = made_from.options
        self.layout = replace(pictures.layout, tables=language.layout.tables)
        self.slices: Sequence[tuple[int, int]] = pictures.slices
        self.epochs = pictures.epochs

    def initial(self) -> Mapping[str, Array]:
        return {**self._pictures.initial(), **self._from.start()}

    def bind(self, replica: Replica) -> None:
        self._pictures.bind(replica)

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[Any]:
        """Batches of pictures, with blocks of text between them as evenly as they come."""
        own = rng.spawn(1)[0]  # so that the pictures are drawn as they are without text
        stretches = self._stretches(start, stop, own)
        blocks = (block for part in stretches for block in self._language.read(*part, own))
        expected = self._language.words_per_sentence * sum(b - a for a, b in stretches)
        count = -(-(stop - start) // self._options.projection.batch)
        words = 0
        for i, batch in enumerate(self._pictures.read(start, stop, rng)):
            while words <= expected * i / count and (block := next(blocks, None)) is not None:
                words += block.words
                yield block
            yield batch
        yield from blocks

    def rows(self, batch: Any) -> dict[str, Rows]:
        if isinstance(batch, Block):
            return self._language.rows(batch)
        return {name: self._targets.ids for name in (WORDS, WORDS + SQUARES) if name in self._language.model.tables}

    def gradient(
        self, replica: Replica, batch: Any, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        if isinstance(batch, Block):
            pushed, figures = self._language.gradient(replica, batch, rng, 1.0)
            return pushed, {"words": figures["words"]}
        self._targets.rows = torch.from_numpy(replica.tables[WORDS][self._targets.ids]).requires_grad_()
        _, figures = self._pictures.gradient(replica, batch, rng, progress)
        found = self._targets.rows.grad
        assert found is not None
        if not self._options.label_rate:
            return {}, figures
        return self._displaced(replica, found.numpy(), self._options.label_rate * self.schedule(progress)), figures

    def schedule(self, progress: float) -> float:
        return self._pictures.schedule(progress)

    def _displaced(self, replica: Replica, gradient: Array, rate: float) -> TableGradient:
        """What the shards are to take from the labels' rows (the rule `sum`)."""
        ids = self._targets.ids
        if WORDS + SQUARES not in replica.tables:
            return {WORDS: (ids, np.float32(rate) * gradient)}
        more = np.square(gradient).mean(axis=1, keepdims=True)
        root = np.sqrt(replica.tables[WORDS + SQUARES][ids] + more)
        return {WORDS: (ids, np.float32(rate) * gradient / (root + np.float32(EPS))), WORDS + SQUARES: (ids, -more)}

    def _stretches(self, start: int, stop: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Ranges of sentences beside the pictures [start, stop): of a part of the text as large as theirs is of all
        pictures, from a random place in it."""
        sentences, pictures = self._language.slices[-1][1], self.slices[-1][1]
        begin, end = (sentences * row // pictures for row in (start, stop))
        whole, share = divmod(self._options.text_passes / self.epochs, 1.0)
        first = int(rng.integers(begin, end + 1))
        left = int(share * (end - begin) + rng.random())
        last = min(first + left, end)
        ranges = [(begin, end)] * int(whole) + [(first, last), (begin, begin + left - (last - first))]
        return [(a, b) for a, b in ranges if a < b]


def keep_tables(trained: Mapping[str, Array], path: str) -> None:
    """What of the language phase's end is not in its vectors, for `BuildCarried`."""
    store.write_bytes(path, save_safetensors({name: table for name, table in trained.items() if name != WORDS}))
