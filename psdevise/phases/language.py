"""The language phase: skip-gram over the corpus, through row-dealt tables (Mikolov et al. 2013).

A batch is a block of text. The worker fetches the rows that the block may touch into its replica, trains
on it in place at the scheduled local rate (Downpour's local steps, with n_push = the block), and pushes
before − after of the touched rows. The rule `sum` adds that up as it is; with `skipgram.step: adagrad` the rows'
accumulators come and go with them, so all workers step by the same Adagrad. For the other rules the worker's
steps are plain SGD, and what it pushes is divided by the rate: the block's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from psdevise.config import option
from psdevise.data.corpus import Corpus
from psdevise.errors import ConfigError
from psdevise.labels.vectors import WordVectors
from psdevise.models.skipgram import SQUARES, Block, SkipGram, SkipGramOptions
from psdevise.server.layout import Layout, Table
from psdevise.server.ledger import cut
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.protocol import Array, Rows
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import Constant, Linear
from psdevise.worker.replica import Replica
from psdevise.worker.task import Figures, TableGradient, generator


@dataclass(frozen=True)
class LanguageOptions:
    vectors: str | None = option(None, "word vectors of your own (word2vec, GloVe or Parquet); null: train them")
    skipgram: SkipGramOptions = option(SkipGramOptions(), "the model")
    epochs: int = option(1, "passes over the text", low=1)
    rate: float = option(0.1, "learning rate inside a block; word2vec's for skipgram.step sgd is 0.025", low=0.0)
    schedule: Literal["constant", "linear"] = option("constant", "the rate stays, or falls linearly to a hundredth")
    block_words: int = option(20_000, "words of a block, between a fetch and a push of rows", low=1)
    slices: int = option(64, "slices of the corpus per pass; at least ten per worker", low=1)
    optimizer: OptimizerOptions = option(OptimizerOptions(table_rule="sum"), "update of the tables on the shards")
    downpour: DownpourOptions = option(
        DownpourOptions(overlap=False),
        "how workers exchange with shards; a fetch ahead would lack the block's own rows, and overshoot",
    )

    def __post_init__(self) -> None:
        if self.skipgram.step == "adagrad" and self.optimizer.table_rule != "sum":
            raise ConfigError(
                f"the workers' own Adagrad steps are added up, not stepped again by {self.optimizer.table_rule!r}",
                where="optimizer.table_rule",
                mend="set optimizer.table_rule: sum, or skipgram.step: sgd with rate: 0.025 and schedule: linear",
            )


@dataclass(frozen=True)
class BuildLanguage:
    """Makes the task on a worker."""

    corpus: str
    counts: tuple[int, ...]
    options: LanguageOptions
    seed: int

    def __call__(self) -> LanguageTask:
        return LanguageTask(Corpus(self.corpus), np.asarray(self.counts, np.int64), self.options, self.seed)


class LanguageTask:
    """A Task (`psdevise.worker.task`) over a corpus of encoded sentences."""

    def __init__(self, corpus: Corpus, counts: np.ndarray[Any, Any], options: LanguageOptions, seed: int) -> None:
        self._corpus, self._options, self._seed = corpus, options, seed
        self.model = SkipGram(counts, options.skipgram)
        tables = tuple(Table(name, rows, dim) for name, (rows, dim) in self.model.tables.items())
        self.layout = Layout(tables=tables)
        self.slices: Sequence[tuple[int, int]] = cut(corpus.rows, options.slices)
        self.epochs = options.epochs
        self.words_per_sentence = counts.sum() / max(corpus.rows, 1)
        self._schedule = Linear(floor=1e-2) if options.schedule == "linear" else Constant()

    def initial(self) -> Mapping[str, Array]:
        return self.model.initial(generator(self._seed, 0))

    def bind(self, replica: Replica) -> None:
        pass

    def read(self, start: int, stop: int, rng: np.random.Generator) -> Iterator[Block]:
        held: list[Any] = []
        words = 0
        for sentence in self._corpus.read(start, stop):
            held.append(sentence)
            words += len(sentence)
            if words >= self._options.block_words:
                yield self.model.prepare(held, rng)
                held, words = [], 0
        if held:
            yield self.model.prepare(held, rng)

    def rows(self, batch: Block) -> dict[str, Rows]:
        return batch.rows

    def gradient(
        self, replica: Replica, batch: Block, rng: np.random.Generator, progress: float
    ) -> tuple[TableGradient, Figures]:
        rate = self._options.rate * self._schedule(progress)
        before = {name: replica.tables[name][ids] for name, ids in batch.rows.items()}
        figures = self.model.train(replica.tables, batch, rate)
        displaced = self._options.optimizer.table_rule == "sum"
        pushed = {}
        for name, ids in batch.rows.items():
            moved = before[name]
            moved -= replica.tables[name][ids]
            if not displaced:
                moved /= np.float32(rate)
            pushed[name] = (ids, moved)
        return pushed, {"words": float(batch.words), "examples": float(figures.pairs), "loss": figures.loss}

    def schedule(self, progress: float) -> float:
        return self._schedule(progress)


def word_vectors(terms: tuple[str, ...], counts: tuple[int, ...], parameters: Mapping[str, Array]) -> WordVectors:
    """The trained input table as vectors by term."""
    return WordVectors(terms, parameters["input"], np.asarray(counts, np.int64))


def grown(parameters: Mapping[str, Array], options: OptimizerOptions) -> dict[str, float]:
    """table → the share of its rows whose Adagrad accumulator (mean over the row) more than doubled; empty for SGD.

    Where it is small the initial accumulator is so large that Adagrad is SGD by another name. The workers' own
    accumulators begin at 0, so that theirs is the share of rows that were trained at all.
    """
    found = {}
    for name, values in parameters.items():
        if name.startswith("sums."):
            found[name.removeprefix("sums.")] = _share(values, 2 * options.initial_accumulator)
        elif name.endswith(SQUARES):
            found[name.removesuffix(SQUARES)] = _share(values, 0.0)
    return found


def _share(sums: Array, above: float) -> float:
    return float((sums.mean(axis=1) > above).mean())
