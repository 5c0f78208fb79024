"""Skip-gram over a block of text, in place on full tables, by gensim's compiled kernel (Mikolov et al. 2013).

For each word w of a sentence and each word c inside its window, hierarchical softmax steps along w's
Huffman path: with h = input[c], v = inner[node] and the path's bit b,

    g = (1 − b − σ(v·h)) · rate,    inner[node] += g h,    input[c] += Σ g v

and negative sampling does the same with sampled output words in place of inner nodes. The kernel wants full
tables indexed by term number and at most 10,000 words a call; it holds no GIL while it computes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from gensim.models.word2vec_inner import train_batch_sg

from psdevise.config import option
from psdevise.errors import DataError

KERNEL_WORDS = 10_000
LOSS_PAIRS = 200
Tables = dict[str, npt.NDArray[np.float32]]
Rows = npt.NDArray[np.int64]


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
    """Sub-sampled sentences, ready for the kernel. `rows`: table → sorted rows it may touch; `words`: raw
    words that went in; `seed` of the windows; `noise`: cumulative counts of this block's negatives."""

    sentences: list[list[int]]
    rows: dict[str, Rows]
    words: int
    seed: int
    noise: npt.NDArray[np.uint32] | None = None


class Trained(NamedTuple):
    """`pairs`: words trained on after sub-sampling; `loss`: an estimate, summed over them, of −log p of a
    neighbour, from a few hundred neighbours before the block is trained on (gensim's own running loss has
    the bits of the Huffman code the wrong way round)."""

    pairs: int
    loss: float


class SkipGram:
    """
    Args:
        counts: int64 [terms], most frequent first.

    Raises:
        DataError: fewer than two terms.
    """

    def __init__(self, counts: npt.NDArray[np.int64], options: SkipGramOptions) -> None:
        if len(counts) < 2:
            raise DataError("a language model needs at least two terms", where="vocabulary")
        self._options, self._counts = options, counts
        terms, dim = len(counts), options.dim
        self._keep = keep_probability(counts, options.sample)
        self.tables = {"input": (terms, dim)}
        self._work = np.zeros(dim, np.float32)
        self._hierarchical = options.objective == "hierarchical_softmax"
        expandos: dict[str, object] = {}
        if self._hierarchical:
            self.tables["inner"] = (terms - 1, dim)
            self._codes, self._points = huffman(counts)
            expandos = {"code": self._codes, "point": self._points}
            self._path_lengths = np.array([len(p) for p in self._points])
            self._path_starts = np.concatenate([[0], np.cumsum(self._path_lengths)])
            self._paths = np.concatenate(self._points).astype(np.int64)
        else:
            self.tables["output"] = (terms, dim)
            self._noise = counts**0.75 / (counts**0.75).sum()
        # What the kernel reads of a gensim model; terms are their own keys.
        self._kernel = SimpleNamespace(
            hs=int(self._hierarchical),
            negative=0 if self._hierarchical else options.negative,
            sample=0,
            cbow_mean=0,
            window=options.window,
            workers=1,
            shrink_windows=True,
            running_training_loss=0.0,
            wv=SimpleNamespace(
                key_to_index=range(terms),
                expandos=expandos,
                vector_size=dim,
                vectors_lockf=np.ones(1, np.float32),
            ),
        )

    def initial(self, rng: np.random.Generator) -> Tables:
        """word2vec's start: input uniform in ±1/(2 dim), everything else zero."""
        found = {name: np.zeros(shape, np.float32) for name, shape in self.tables.items()}
        found["input"] = ((rng.random(self.tables["input"], dtype=np.float32) - 0.5) / self._options.dim).astype(
            np.float32
        )
        return found

    def prepare(self, sentences: list[npt.NDArray[np.int32]], rng: np.random.Generator) -> Block:
        """Sub-samples a block's sentences and finds the rows that training on it may touch."""
        words = sum(map(len, sentences))
        kept = [s[rng.random(len(s)) < self._keep[s]] for s in sentences]
        kept = [s for s in kept if len(s) > 1]
        unique = np.unique(np.concatenate(kept)).astype(np.int64) if kept else np.zeros(0, np.int64)
        seed = int(rng.integers(2**31))
        rows = {"input": unique}
        noise = None
        if self._hierarchical:
            rows["inner"] = self._inner_rows(unique)
        else:
            drawn = rng.multinomial(max(10_000, words), self._noise)
            noise = (drawn.cumsum() * ((2**31 - 1) / drawn.sum())).astype(np.uint32)
            rows["output"] = np.union1d(unique, np.flatnonzero(drawn)).astype(np.int64)
        return Block([s.tolist() for s in kept], rows, words, seed, noise)

    def train(self, tables: Tables, block: Block, rate: float) -> Trained:
        """Trains in place on `tables` (float32, C order, of the shapes in `self.tables`) at a fixed rate."""
        kernel = self._kernel
        kernel.wv.vectors = tables["input"]
        if self._hierarchical:
            kernel.syn1 = tables["inner"]
        else:
            kernel.syn1neg, kernel.cum_table = tables["output"], block.noise
        kernel.random = np.random.RandomState(block.seed)
        loss = self._sampled_loss(tables, block)
        pairs = 0
        for call in _calls(block.sentences):
            pairs += train_batch_sg(kernel, call, rate, self._work, False)
        return Trained(pairs, loss * pairs)

    def _sampled_loss(self, tables: Tables, block: Block) -> float:
        """Mean −log p(word | neighbour) over LOSS_PAIRS adjacent pairs; for negative sampling, of the true
        word alone."""
        if not block.sentences:
            return 0.0
        rng = np.random.default_rng(block.seed)
        chosen = rng.integers(len(block.sentences), size=LOSS_PAIRS)
        pairs = [(s := block.sentences[i], int(rng.integers(len(s) - 1))) for i in chosen]
        words = np.array([s[i] for s, i in pairs])
        hidden = tables["input"][[s[i + 1] for s, i in pairs]]
        if not self._hierarchical:
            score = np.einsum("pd,pd->p", hidden, tables["output"][words])
            return float(np.logaddexp(0.0, -score).mean())
        lengths = self._path_lengths[words]
        paths = np.concatenate([self._points[w] for w in words]).astype(np.int64)
        bits = np.concatenate([self._codes[w] for w in words]).astype(np.float32)
        score = np.einsum("nd,nd->n", np.repeat(hidden, lengths, axis=0), tables["inner"][paths])
        return float(np.logaddexp(0.0, (2 * bits - 1) * score).sum() / len(words))

    def _inner_rows(self, unique: Rows) -> Rows:
        touched = np.zeros(self.tables["inner"][0], bool)
        lengths = self._path_lengths[unique]
        starts = self._path_starts[unique]
        # All paths of the block's words at once: position i of the result lies in the path of its word.
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        touched[self._paths[np.repeat(starts, lengths) + offsets]] = True
        return np.flatnonzero(touched).astype(np.int64)


def keep_probability(counts: npt.NDArray[np.int64], sample: float) -> npt.NDArray[np.float64]:
    """word2vec's sub-sampling: min(1, (√(f/t) + 1) · t/f) with f a term's share of the corpus, t = `sample`."""
    if sample <= 0:
        return np.ones(len(counts))
    ratio = counts / (sample * counts.sum())
    return np.minimum(1.0, (np.sqrt(ratio) + 1) / ratio)


def huffman(
    counts: npt.NDArray[np.int64],
) -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint32]]]:
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


def _calls(sentences: list[list[int]]) -> list[list[list[int]]]:
    """Sentences grouped into calls of at most KERNEL_WORDS words; a longer one is cut."""
    calls: list[list[list[int]]] = [[]]
    words = 0
    for sentence in sentences:
        for start in range(0, len(sentence), KERNEL_WORDS):
            part = sentence[start : start + KERNEL_WORDS]
            if words + len(part) > KERNEL_WORDS:
                calls.append([])
                words = 0
            calls[-1].append(part)
            words += len(part)
    return calls
