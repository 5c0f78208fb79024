"""Which terms there are, how often each occurs, and how text becomes their numbers.

Multi-word terms of labels are merged longest first *before* counting, so that "pickup truck" is one term
and its words are counted only where they stand alone. Label terms are kept however rare.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.config import option
from psdevise.data import text, tokenizer
from psdevise.data.processes import pool
from psdevise.errors import DataError

T = TypeVar("T")
LINES_PER_TASK = 64
PHRASE_MARK = " "


@dataclass(frozen=True)
class VocabularyOptions:
    tokenizer: str = option(tokenizer.DEFAULT, "module:function that cuts text into words")
    min_count: int = option(5, "occurrences below which a word is dropped; label terms are kept from 1", low=1)
    max_terms: int | None = option(None, "at most this many terms, the most frequent ones", low=1)
    phrases: bool = option(False, "also find frequent word pairs (gensim Phrases) and make them terms")
    max_line_words: int = option(1000, "longer lines are cut into sentences of this many words", low=2)
    processes: int = option(2, "processes that count and encode", low=1)


class Merger:
    """Joins the words of multi-word terms, longest match first."""

    def __init__(self, terms: Iterable[Sequence[str]]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for term in sorted({tuple(t) for t in terms if len(t) > 1}, key=lambda t: (-len(t), t)):
            self._by_first.setdefault(term[0], []).append(term)

    def __call__(self, words: list[str]) -> list[str]:
        by_first = self._by_first
        if by_first.keys().isdisjoint(words):
            return words
        merged: list[str] = []
        i = 0
        while i < len(words):
            for term in by_first.get(words[i], ()):
                if tuple(words[i : i + len(term)]) == term:
                    merged.append(PHRASE_MARK.join(term))
                    i += len(term)
                    break
            else:
                merged.append(words[i])
                i += 1
        return merged


@dataclass(frozen=True)
class Vocabulary:
    """
    Attributes:
        terms: most frequent first; the words of a multi-word term are joined by one space.
        counts: occurrences of each in the corpus.
        merges: the multi-word terms that are joined before counting, as words.
        tokenizer: import path of the function that cut the text.
    """

    terms: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    merges: tuple[tuple[str, ...], ...]
    tokenizer: str

    @property
    def size(self) -> int:
        return len(self.terms)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def index(self) -> dict[str, int]:
        return {term: i for i, term in enumerate(self.terms)}

    @cached_property
    def merger(self) -> Merger:
        return Merger(self.merges)

    def encode(self, words: list[str]) -> npt.NDArray[np.int32]:
        """Words → the numbers of their terms; merges first, unknown words are dropped."""
        index = self.index
        return np.array([n for n in map(index.get, self.merger(words)) if n is not None], np.int32)

    def term_of(self, phrase: str) -> str:
        """A label's phrase as it would stand among the terms: cut by the same tokeniser."""
        return PHRASE_MARK.join(tokenizer.load(self.tokenizer)(phrase))

    def save(self, path: str) -> None:
        about = json.dumps({"merges": [list(m) for m in self.merges], "tokenizer": self.tokenizer})
        table = pa.table({"term": list(self.terms), "count": self.counts})
        table = table.replace_schema_metadata({"psdevise": about})
        store.write_atomic(path, lambda f: pq.write_table(table, f))

    @staticmethod
    def load(path: str) -> Vocabulary:
        try:
            with store.open_read(path) as f:
                table = pq.read_table(f)
            about = json.loads(table.schema.metadata[b"psdevise"])
        except (pa.ArrowInvalid, KeyError, TypeError, OSError) as e:
            raise DataError(f"not a vocabulary: {e}", where=path) from e
        merges = tuple(tuple(m) for m in about["merges"])
        counts = table.column("count").to_numpy().astype(np.int64)
        return Vocabulary(tuple(table.column("term").to_pylist()), counts, merges, about["tokenizer"])


def count(path: str, options: VocabularyOptions, keep: Iterable[str] = (), column: str | None = None) -> Vocabulary:
    """Counts a text's terms in parallel.

    Args:
        keep: label terms (phrases); they are merged, and kept from one occurrence on.

    Raises:
        DataError: the text holds no word that occurs `min_count` times.
    """
    cut = tokenizer.load(options.tokenizer)
    kept = [tuple(cut(phrase)) for phrase in keep]
    merges = tuple(sorted({k for k in kept if len(k) > 1}))
    if options.phrases:
        merges = tuple(sorted({*merges, *_phrases(path, options, column)}))
    counts: Counter[str] = Counter()
    for part in _parallel(_count_lines, path, column, (options.tokenizer, merges), options.processes):
        counts.update(part)
    wanted = {PHRASE_MARK.join(k) for k in kept}
    found = [(t, n) for t, n in counts.items() if n >= options.min_count or t in wanted]
    if not found:
        raise DataError(
            f"no word occurs {options.min_count} times",
            where=path,
            mend="lower vocabulary.min_count or give more text",
        )
    found.sort(key=lambda pair: (-pair[1], pair[0]))
    if options.max_terms is not None:
        rest = [pair for pair in found[options.max_terms :] if pair[0] in wanted]
        found = found[: options.max_terms - len(rest)] + rest
    terms, numbers = zip(*found, strict=True)
    return Vocabulary(tuple(terms), np.array(numbers, np.int64), merges, options.tokenizer)


def sentences(
    path: str, vocabulary: Vocabulary, options: VocabularyOptions, column: str | None = None
) -> Iterator[list[npt.NDArray[np.int32]]]:
    """The text in its order as lists of encoded sentences of at most `max_line_words` terms."""
    arguments = (vocabulary, options.max_line_words)
    yield from _parallel(_encode_lines, path, column, arguments, options.processes)


def _parallel(
    work: Callable[[Sequence[str]], T], path: str, column: str | None, arguments: tuple[object, ...], processes: int
) -> Iterator[T]:
    """`work` over batches of lines, results in order, a bounded number under way. `arguments` reach every
    process once."""
    batches = _batched(text.lines(path, column), LINES_PER_TASK)
    if processes == 1:
        _set_state(arguments)
        yield from (work(batch) for batch in batches)
        return
    with pool(processes, _set_state, (arguments,)) as workers:
        waiting: deque[Future[T]] = deque()
        for batch in batches:
            waiting.append(workers.submit(work, batch))
            if len(waiting) > 4 * processes:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


_state: tuple[object, ...] = ()


def _set_state(arguments: tuple[object, ...]) -> None:
    global _state
    _state = arguments


def _count_lines(batch: Sequence[str]) -> Counter[str]:
    name, merges = _state
    cut, merge = tokenizer.load(str(name)), _merger(merges)  # type: ignore[arg-type]
    counts: Counter[str] = Counter()
    for line in batch:
        counts.update(merge(cut(line)))
    return counts


def _encode_lines(batch: Sequence[str]) -> list[npt.NDArray[np.int32]]:
    vocabulary, longest = _state
    assert isinstance(vocabulary, Vocabulary)
    assert isinstance(longest, int)
    cut = tokenizer.load(vocabulary.tokenizer)
    found = []
    for line in batch:
        numbers = vocabulary.encode(cut(line))
        found += [numbers[i : i + longest] for i in range(0, len(numbers), longest)]
    return [s for s in found if len(s) > 1]


_mergers: dict[tuple[tuple[str, ...], ...], Merger] = {}


def _merger(merges: tuple[tuple[str, ...], ...]) -> Merger:
    if merges not in _mergers:
        _mergers[merges] = Merger(merges)
    return _mergers[merges]


def _phrases(path: str, options: VocabularyOptions, column: str | None) -> set[tuple[str, ...]]:
    from gensim.models.phrases import Phrases

    cut = tokenizer.load(options.tokenizer)
    model = Phrases((cut(line) for line in text.lines(path, column)), min_count=options.min_count, delimiter="\t")
    return {tuple(phrase.split("\t")) for phrase in model.export_phrases()}


def _batched(source: Iterator[str], n: int) -> Iterator[tuple[str, ...]]:
    while batch := tuple(itertools.islice(source, n)):
        yield batch
