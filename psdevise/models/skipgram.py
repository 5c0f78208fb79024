"""Skip-gram over a block of text, in place on full tables (Mikolov et al. 2013), a window at a time.

A word w with neighbours c_1 … c_m inside its window has targets t_1 … t_p with labels y: for hierarchical
softmax the inner nodes on w's Huffman path, labelled 1 − bit; for negative sampling w itself, labelled 1,
and sampled words, labelled 0, shared by the whole window. With rows H = input[c] [m, dim] and V = output[t]
[p, dim], both as they were before the window,

    E = y − σ(H Vᵀ) [m, p],    output[t] += step · Eᵀ H,    input[c] += step · E V.

word2vec makes the same updates pair by pair; by windows they are small matrix products (Ji et al. 2016,
"Parallelizing Word2Vec in Shared and Distributed Memory"). `step` is the rate, or row-wise Adagrad's

    s ← s + ‖g‖² / dim,    step = rate / (√s + eps)

with one accumulator s per row, from 0, and g the row's term above: Adagrad per update, not per block. The
accumulators are tables like the others, [rows, 1], so they travel and are added up with the rows they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from psdevise.config import option
from psdevise.errors import DataError
from psdevise.models.huffman import huffman

F = np.float32
Array = npt.NDArray[np.float32]
Tables = dict[str, Array]
Integers = npt.NDArray[np.int64]
SQUARES = ".squares"  # table → its accumulators' table
EPS = 1e-10  # Adagrad's


@dataclass(frozen=True)
class SkipGramOptions:
    dim: int = option(200, "dimensions of the word vectors", low=1)
    window: int = option(10, "words to each side, shrunk uniformly at random for each word", low=1)
    sample: float = option(1e-4, "frequency above which words are sub-sampled; 0 keeps all", low=0.0)
    objective: Literal["hierarchical_softmax", "negative_sampling"] = option(
        "hierarchical_softmax",
        "what is predicted: the Huffman path of a word, or the word among sampled ones",
    )
    negative: int = option(5, "negative_sampling: sampled words for each true one", low=1)
    step: Literal["adagrad", "sgd"] = option(
        "adagrad", "a worker's steps inside a block: adagrad (an accumulator per row, shared by all workers) or sgd"
    )


@dataclass(frozen=True)
class Block:
    """What is left of a block's text after sub-sampling, with all that is random in it drawn.

    Attributes:
        words: words of the text before sub-sampling.
        rows: table → sorted rows that training reads and may change.
        terms: int32 [n], the words trained on, sentence after sentence.
        low, high: word i's neighbours are terms[low[i]:high[i]] but for itself [n].
        starts, lengths: word i's targets are targets[starts[i]:starts[i] + lengths[i]] [n].
        targets: int32, rows of the output table; labels: float32, 1 or 0 for each target.
    """

    words: int
    rows: dict[str, Integers]
    terms: npt.NDArray[np.int32]
    low: Integers
    high: Integers
    starts: Integers
    lengths: Integers
    targets: npt.NDArray[np.int32]
    labels: Array


class Trained(NamedTuple):
    """`pairs` of a word and a neighbour; `loss`: −log p summed over them, estimated from a part of the windows."""

    pairs: int
    loss: float


class SkipGram:
    """
    Args:
        counts: int64 [terms], most frequent first.

    Attributes:
        tables: name → (rows, dim): `input` [terms], `inner` [terms − 1] or `output` [terms], and with Adagrad their
            `.squares`.

    Raises:
        DataError: fewer than two terms.
    """

    def __init__(self, counts: Integers, options: SkipGramOptions) -> None:
        if len(counts) < 2:
            raise DataError("a language model needs at least two terms", where="vocabulary")
        # Imported here: numba takes a second, which who only reads options should not pay. A driver makes its model
        # before its workers do, so the kernel is compiled once and not by each of them in its first step.
        from psdevise.models import skipgram_kernel

        skipgram_kernel.warm_up()
        self._train = skipgram_kernel.train
        self._options = options
        self._keep = keep_probability(counts, options.sample)
        terms, dim = len(counts), options.dim
        self._output = "inner" if options.objective == "hierarchical_softmax" else "output"
        if self._output == "inner":
            self._paths = huffman(counts)
            self._labels = F(1) - self._paths.bits.astype(F)
        else:
            self._noise = np.cumsum(counts.astype(np.float64) ** 0.75)
        self.tables = {"input": (terms, dim), self._output: (terms - (self._output == "inner"), dim)}
        if options.step == "adagrad":
            self.tables |= {name + SQUARES: (rows, 1) for name, (rows, _) in self.tables.items()}

    def initial(self, rng: np.random.Generator) -> Tables:
        """word2vec's start: input uniform in ±1/(2 dim), everything else zero."""
        tables = {name: np.zeros(shape, F) for name, shape in self.tables.items()}
        values = rng.random(self.tables["input"], dtype=F)
        values -= F(0.5)
        values /= F(self._options.dim)
        return tables | {"input": values}

    def prepare(self, sentences: list[npt.NDArray[np.int32]], rng: np.random.Generator) -> Block:
        """Sub-samples a block's sentences, draws windows and negatives, and finds the rows they touch."""
        text = np.concatenate([np.zeros(0, np.int32), *sentences])
        sentence = np.repeat(np.arange(len(sentences)), [len(s) for s in sentences])
        kept = rng.random(len(text)) < self._keep[text]
        sizes = np.bincount(sentence[kept], minlength=len(sentences))
        kept &= sizes[sentence] > 1  # a word alone has no neighbour
        terms, sentence = text[kept], sentence[kept]
        position, window = np.arange(len(terms)), self._options.window
        reach = window - rng.integers(0, window, len(terms))
        low = np.maximum(position - reach, np.searchsorted(sentence, sentence, "left"))
        high = np.minimum(position + reach + 1, np.searchsorted(sentence, sentence, "right"))
        if self._output == "inner":
            targets, labels = self._paths.nodes, self._labels
            starts, lengths = self._paths.starts[terms], self._paths.lengths[terms]
        else:
            targets, labels, starts, lengths = self._sampled(terms, rng)
        unique = np.unique(terms).astype(np.int64)
        rows = {"input": unique, self._output: self._output_rows(unique, targets)}
        if self._options.step == "adagrad":
            rows |= {name + SQUARES: ids for name, ids in rows.items()}
        return Block(len(text), rows, terms, low, high, starts, lengths, targets, labels)

    def train(self, tables: Tables, block: Block, rate: float) -> Trained:
        """Trains in place on `tables` (float32, C order, of the shapes in `self.tables`) at a fixed rate; looks only
        at `block.rows`."""
        adagrad, none = self._options.step == "adagrad", np.zeros(0, F)
        pairs, loss = self._train(
            tables["input"],
            tables[self._output],
            tables["input" + SQUARES].reshape(-1) if adagrad else none,
            tables[self._output + SQUARES].reshape(-1) if adagrad else none,
            F(rate),
            block.terms,
            block.low,
            block.high,
            block.starts,
            block.lengths,
            block.targets,
            block.labels,
            2 * self._options.window,
            int(block.lengths.max(initial=0)),
        )
        return Trained(int(pairs), float(loss))

    def _sampled(self, terms: npt.NDArray[np.int32], rng: np.random.Generator) -> tuple[Any, Array, Integers, Integers]:
        """For each word itself and its negatives; a negative that hits the word is left out, as in word2vec."""
        shape = (len(terms), self._options.negative)
        drawn = np.searchsorted(self._noise, rng.random(shape) * self._noise[-1], "right")
        targets = np.concatenate([terms[:, None], drawn], axis=1).astype(np.int32)
        valid = targets != terms[:, None]
        valid[:, 0] = True
        labels = np.broadcast_to(np.arange(targets.shape[1]) == 0, valid.shape)[valid].astype(F)
        lengths = valid.sum(axis=1)
        return targets[valid], labels, np.cumsum(lengths) - lengths, lengths

    def _output_rows(self, unique: Integers, targets: npt.NDArray[np.int32]) -> Integers:
        touched = np.zeros(self.tables[self._output][0], bool)
        if self._output == "inner":
            lengths = self._paths.lengths[unique]
            # All paths of the block's words at once: each place in the result lies in the path of its word.
            places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            targets = targets[np.repeat(self._paths.starts[unique], lengths) + places]
        touched[targets] = True
        return np.flatnonzero(touched).astype(np.int64)


def keep_probability(counts: Integers, sample: float) -> npt.NDArray[np.float64]:
    """word2vec's sub-sampling: min(1, (√(f/t) + 1) · t/f) with f a term's share of the corpus, t = `sample`."""
    if sample <= 0:
        return np.ones(len(counts))
    ratio = counts / (sample * counts.sum())
    return np.minimum(1.0, (np.sqrt(ratio) + 1) / ratio)
