"""Skip-gram over a block of text, in place on full tables (Mikolov et al. 2013), a window at a time.

A word w with neighbours c_1 … c_m inside its window has targets t_1 … t_p with labels y: for hierarchical
softmax the inner nodes on w's Huffman path, labelled 1 − bit; for negative sampling w itself, labelled 1,
and sampled words, labelled 0, shared by the whole window. With rows H = input[c] [m, dim] and V = output[t]
[p, dim], both as they were before the window,

    E = y − σ(H Vᵀ) [m, p],    output[t] += step · Eᵀ H,    input[c] += step · E V.

word2vec makes the same updates pair by pair; by windows they are small matrix products (Ji et al. 2016,
"Parallelizing Word2Vec in Shared and Distributed Memory"). `step` is the rate, or row-wise Adagrad's

    s ← s + ‖g‖² / dim,    step = rate / (√s + eps)

with one accumulator s per row and g the row's term above: Adagrad per update, not per block.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from psdevise.config import option
from psdevise.errors import DataError

LOSS_EVERY = 16  # windows; the logarithms of all would cost as much as the products
EPS = 1e-10
F = np.float32
Array = npt.NDArray[np.float32]
Tables = dict[str, Array]
Integers = npt.NDArray[np.int64]


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
        tables: name → (rows, dim): `input` [terms], and `inner` [terms − 1] or `output` [terms].

    Raises:
        DataError: fewer than two terms.
    """

    def __init__(self, counts: Integers, options: SkipGramOptions) -> None:
        if len(counts) < 2:
            raise DataError("a language model needs at least two terms", where="vocabulary")
        self._options = options
        self._keep = keep_probability(counts, options.sample)
        terms, dim = len(counts), options.dim
        self._output = "inner" if options.objective == "hierarchical_softmax" else "output"
        if self._output == "inner":
            codes, points = huffman(counts)
            self._lengths = np.array([len(p) for p in points], np.int64)
            self._starts = np.cumsum(self._lengths) - self._lengths
            self._targets = np.concatenate(points).astype(np.int32)
            self._labels = F(1) - np.concatenate(codes).astype(np.float32)
        else:
            self._noise = np.cumsum(counts.astype(np.float64) ** 0.75)
        self.tables = {"input": (terms, dim), self._output: (terms - (self._output == "inner"), dim)}

    def initial(self, rng: np.random.Generator) -> Tables:
        """word2vec's start: input uniform in ±1/(2 dim), everything else zero."""
        tables = {name: np.zeros(shape, F) for name, shape in self.tables.items()}
        tables["input"] = (rng.random(self.tables["input"], dtype=F) - F(0.5)) / F(self._options.dim)
        return tables

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
            targets, labels = self._targets, self._labels
            starts, lengths = self._starts[terms], self._lengths[terms]
        else:
            targets, labels, starts, lengths = self._sampled(terms, rng)
        unique = np.unique(terms).astype(np.int64)
        rows = {"input": unique, self._output: self._output_rows(unique, targets)}
        return Block(len(text), rows, terms, low, high, starts, lengths, targets, labels)

    def train(self, tables: Tables, block: Block, rate: float, accumulators: Tables | None = None) -> Trained:
        """Trains in place at a fixed rate: plain SGD, or row-wise Adagrad where there are accumulators.

        Args:
            tables: float32, C order, of the shapes in `self.tables`; only `block.rows` are looked at.
            accumulators: table → float32 [rows], the sums of squares s, changed in place.
        """
        sums = accumulators or dict.fromkeys(tables, np.zeros(0, F))
        pairs, loss = _train(
            tables["input"], tables[self._output], sums["input"], sums[self._output], F(rate),
            block.terms, block.low, block.high, block.starts, block.lengths, block.targets, block.labels,
            2 * self._options.window, block.lengths.max(initial=0),
        )  # fmt: skip
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
            lengths = self._lengths[unique]
            # All paths of the block's words at once: each place in the result lies in the path of its word.
            places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            targets = targets[np.repeat(self._starts[unique], lengths) + places]
        touched[targets] = True
        return np.flatnonzero(touched).astype(np.int64)


def keep_probability(counts: Integers, sample: float) -> npt.NDArray[np.float64]:
    """word2vec's sub-sampling: min(1, (√(f/t) + 1) · t/f) with f a term's share of the corpus, t = `sample`."""
    if sample <= 0:
        return np.ones(len(counts))
    ratio = counts / (sample * counts.sum())
    return np.minimum(1.0, (np.sqrt(ratio) + 1) / ratio)


def huffman(counts: Integers) -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint32]]]:
    """Each term's code (bits from the root) and the inner nodes on its path, the root being the highest
    number, terms − 2, as in word2vec."""
    terms = len(counts)
    heap = [(int(n), i) for i, n in enumerate(counts)]
    heapq.heapify(heap)
    parent = np.zeros(2 * terms - 1, np.int64)
    bit = np.zeros(2 * terms - 1, np.uint8)
    for node in range(terms, 2 * terms - 1):
        (n1, left), (n2, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        bit[right] = 1
        heapq.heappush(heap, (n1 + n2, node))
    root = 2 * terms - 2
    codes: list[npt.NDArray[np.uint8]] = []
    points: list[npt.NDArray[np.uint32]] = []
    for term in range(terms):
        bits, path, node = [], [], term
        while node != root:
            bits.append(bit[node])
            node = int(parent[node])
            path.append(node - terms)
        codes.append(np.array(bits[::-1], np.uint8))
        points.append(np.array(path[::-1], np.uint32))
    return codes, points


# Sums may be reordered, which is what vector registers want; NaN stays NaN, so that shards can refuse it.
_compiled = numba.njit(fastmath={"reassoc", "contract", "nsz"}, nogil=True, cache=True, error_model="numpy")


@_compiled
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """σ(x) = ½ + ½ tanh(x/2), with Eigen's rational approximation of tanh: within 1e-6, and it vectorises."""
    x = min(max(x * F(0.5), F(-9)), F(9))
    y = x * x
    p = (F(-2.76076847742355e-16) * y + F(2.00018790482477e-13)) * y + F(-8.60467152213735e-11)
    p = ((p * y + F(5.12229709037114e-08)) * y + F(1.48572235717979e-05)) * y + F(6.37261928875436e-04)
    p = (p * y + F(4.89352455891786e-03)) * x
    q = (F(1.19825839466702e-06) * y + F(1.18534705686654e-04)) * y + F(2.26843463243900e-03)
    q = q * y + F(4.89352518554385e-03)
    return F(0.5) + F(0.5) * p / q


@_compiled
def _weighted_sum(weights, rows, count, total):  # type: ignore[no-untyped-def]
    """total = Σ_{i<count} weights[i] rows[i], two rows at a time: an odd count needs weights[count] = 0."""
    total[:] = F(0)
    for i in range(0, count, 2):
        a, b, x, y = weights[i], weights[i + 1], rows[i], rows[i + 1]
        for k in range(total.shape[0]):
            total[k] += a * x[k] + b * y[k]


@_compiled
def _step(table, sums, row, gradient, rate):  # type: ignore[no-untyped-def]
    values = table[row]
    if sums.shape[0] > 0:
        squares = F(0)
        for k in range(gradient.shape[0]):
            squares += gradient[k] * gradient[k]
        sums[row] += squares / F(gradient.shape[0])
        rate = rate / (np.sqrt(sums[row]) + F(EPS))
    for k in range(gradient.shape[0]):
        values[k] += rate * gradient[k]


@_compiled
def _train(  # type: ignore[no-untyped-def]
    input, output, input_sums, output_sums, rate, terms, low, high, starts, lengths, targets, labels, most, longest
):  # fmt: skip
    dim = input.shape[1]
    # One row and column more than needed: products go two by two.
    hidden = np.zeros((most + 1, dim), F)
    nodes = np.zeros((longest + 1, dim), F)
    error = np.zeros((most + 1, longest + 1), F)
    gradient = np.zeros(dim, F)
    pairs, sampled, loss = 0, 0, 0.0
    for i in range(terms.shape[0]):
        start, p, m = starts[i], lengths[i], 0
        for j in range(low[i], high[i]):
            if j != i:
                hidden[m] = input[terms[j]]
                m += 1
        nodes[:p] = output[targets[start : start + p]]
        for j in range(0, m, 2):
            h0, h1 = hidden[j], hidden[j + 1]
            for n in range(0, p, 2):
                v0, v1 = nodes[n], nodes[n + 1]
                s00, s01, s10, s11 = F(0), F(0), F(0), F(0)
                for k in range(dim):
                    s00 += h0[k] * v0[k]
                    s01 += h0[k] * v1[k]
                    s10 += h1[k] * v0[k]
                    s11 += h1[k] * v1[k]
                error[j, n], error[j, n + 1], error[j + 1, n], error[j + 1, n + 1] = s00, s01, s10, s11
        for j in range(m):
            for n in range(p):
                error[j, n] = labels[start + n] - _sigmoid(error[j, n])
        error[: m + 1, p] = F(0)
        error[m, : p + 1] = F(0)
        pairs += m
        if i % LOSS_EVERY == 0:
            sampled += m
            for j in range(m):
                for n in range(p):
                    loss -= np.log(max(1.0 - abs(error[j, n]), 1e-7))
        for n in range(p):
            _weighted_sum(error[:, n], hidden, m, gradient)
            _step(output, output_sums, targets[start + n], gradient, rate)
        m = 0
        for j in range(low[i], high[i]):
            if j != i:
                _weighted_sum(error[m], nodes, p, gradient)
                _step(input, input_sums, terms[j], gradient, rate)
                m += 1
    return pairs, loss * pairs / max(sampled, 1)
