"""Which terms there are, how often each occurs, and how text becomes their numbers (`counting` makes one).

Multi-word terms of labels are merged longest first *before* counting, so that "pickup truck" is one term
and its words are counted only where they stand alone. Label terms are kept however rare.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.config import option
from psdevise.data import tokenizer
from psdevise.errors import DataError

PHRASE_MARK = " "


@dataclass(frozen=True)
class VocabularyOptions:
    tokenizer: str = option(tokenizer.DEFAULT, "module:function that cuts text into words")
    min_count: int = option(5, "occurrences below which a word is dropped; label terms are kept from 1", low=1)
    max_terms: int | None = option(None, "at most this many terms, the most frequent ones; label terms are kept", low=2)
    phrases: bool = option(False, "also find frequent word pairs (gensim Phrases) and make them terms")
    keep: tuple[str, ...] = option((), "files of further label terms (TSV, or one a line): merged, kept from 1 on")
    max_line_words: int = option(1000, "longer lines are cut into sentences of this many words", low=2)
    processes: int = option(2, "processes that count and encode", low=1)


class Merger:
    """Joins the words of multi-word terms, longest match first."""

    def __init__(self, terms: Iterable[Sequence[str]]) -> None:
        # first word → length → terms: looking one up takes the same time however many begin alike
        self._by_first: dict[str, dict[int, set[tuple[str, ...]]]] = {}
        for term in sorted({tuple(t) for t in terms if len(t) > 1}, key=len, reverse=True):
            self._by_first.setdefault(term[0], {}).setdefault(len(term), set()).add(term)

    def __call__(self, words: list[str]) -> list[str]:
        by_first = self._by_first
        if by_first.keys().isdisjoint(words):
            return words
        merged: list[str] = []
        i = 0
        while i < len(words):
            for length, terms in by_first.get(words[i], {}).items():
                if tuple(words[i : i + length]) in terms:
                    merged.append(PHRASE_MARK.join(words[i : i + length]))
                    i += length
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
