"""From a text to its vocabulary, and to encoded sentences: streaming, in several processes."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from psdevise.data import tokenizer
from psdevise.data.corpus import Sentence
from psdevise.data.processes import pool
from psdevise.data.text import Text, plain
from psdevise.data.vocabulary import PHRASE_MARK, Merger, Vocabulary, VocabularyOptions
from psdevise.errors import DataError

T = TypeVar("T")
Term = tuple[str, ...]
RECORDS_PER_TASK = 64
CHARACTERS_PER_TASK = 1 << 23  # or fewer records, where they are long
OnWords = Callable[[int], None]
"""Called with how many words more were seen."""


def count(
    source: Text, options: VocabularyOptions, keep: Iterable[str] = (), on_words: OnWords = lambda n: None
) -> Vocabulary:
    """Counts a text's terms.

    Args:
        keep: label terms (phrases); they are merged before counting, and kept from one occurrence on.

    Raises:
        DataError: the text holds no word, or none that occurs `min_count` times.
    """
    cut = tokenizer.load(options.tokenizer)
    kept: set[Term] = {tuple(cut(phrase)) for phrase in keep}
    merges = tuple(sorted(k for k in kept if len(k) > 1))
    if options.phrases:
        found = _phrases(source, options, merges, on_words)
        counts = _counts(source, options, {*merges, *found}, on_words)
        # A phrase that is no term must not be merged, or its words would be lost: those that will be terms are chosen
        # by this count, and the next one merges nothing else.
        chosen = {tuple(t.split(PHRASE_MARK)) for t, _ in _most_frequent(counts, options, kept)}.intersection(found)
        kept |= chosen
        merges = tuple(sorted({*merges, *chosen}))
    counts = _counts(source, options, merges, on_words)
    if not counts:
        raise DataError("the text is empty: there is no word in it", where=source.path, mend="is it the right file?")
    terms = _most_frequent(counts, options, kept)
    if not terms:
        raise DataError(
            f"no word occurs {options.min_count} times",
            where=source.path,
            mend="lower min_count (vocabulary.min_count, or --min-count), or give more text",
        )
    names, numbers = zip(*terms, strict=True)
    return Vocabulary(tuple(names), np.array(numbers, np.int64), merges, options.tokenizer)


def passes(options: VocabularyOptions) -> int:
    """How often `count` reads the text."""
    return 3 if options.phrases else 1


def sentences(source: Text, vocabulary: Vocabulary, options: VocabularyOptions) -> Iterator[list[Sentence]]:
    """The text in its order as lists of encoded sentences of at most `max_line_words` terms; a word alone is
    dropped."""
    yield from _parallel(_encode, source, (vocabulary, options.max_line_words), options.processes)


def _most_frequent(counts: Counter[str], options: VocabularyOptions, kept: set[Term]) -> list[tuple[str, int]]:
    """Terms and their counts, most frequent first, ties by name; what is `kept` counts towards the cap."""
    wanted = {PHRASE_MARK.join(k) for k in kept}.intersection(counts)
    others = [(t, n) for t, n in counts.items() if n >= options.min_count and t not in wanted]
    others.sort(key=lambda pair: (-pair[1], pair[0]))
    if options.max_terms is not None:
        others = others[: max(0, options.max_terms - len(wanted))]
    return sorted([*others, *((t, counts[t]) for t in wanted)], key=lambda pair: (-pair[1], pair[0]))


def _counts(source: Text, options: VocabularyOptions, merges: Iterable[Term], on_words: OnWords) -> Counter[str]:
    counts: Counter[str] = Counter()
    merger = Merger(merges)
    for part in _parallel(_count, source, (options.tokenizer, merger), options.processes):
        counts.update(part)
        on_words(part.total())
    return counts


def _phrases(source: Text, options: VocabularyOptions, labels: Iterable[Term], on_words: OnWords) -> set[Term]:
    """Frequent pairs of words, as gensim's Phrases scores them; a label's term is in none of them."""
    from gensim.models.phrases import Phrases

    def lines() -> Iterator[list[str]]:
        for part in _parallel(_merge, source, (options.tokenizer, Merger(labels)), options.processes):
            on_words(sum(map(len, part)))
            yield from part

    model = Phrases(lines(), min_count=options.min_count, delimiter="\t")
    pairs = (tuple(phrase.split("\t")) for phrase in model.export_phrases())
    return {pair for pair in pairs if not any(PHRASE_MARK in word for word in pair)}


def _parallel(
    work: Callable[[Sequence[str]], T], source: Text, arguments: tuple[object, ...], processes: int
) -> Iterator[T]:
    """`work` over batches of records, results in order, a bounded number under way. `arguments` reach every
    process once."""
    batches = _batched(source, RECORDS_PER_TASK, CHARACTERS_PER_TASK)
    state = (source.markup, *arguments)
    if processes == 1:
        _set_state(state)
        yield from (work(batch) for batch in batches)
        return
    with pool(processes, _set_state, (state,)) as workers:
        waiting: deque[Future[T]] = deque()
        for batch in batches:
            waiting.append(workers.submit(work, batch))
            if len(waiting) > 4 * processes:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _batched(source: Iterable[str], records: int, characters: int) -> Iterator[list[str]]:
    """Lists of at most so many records, which end with the one that has them hold so many characters."""
    held: list[str] = []
    size = 0
    for record in source:
        held.append(record)
        size += len(record)
        if len(held) == records or size >= characters:
            yield held
            held, size = [], 0
    if held:
        yield held


_state: tuple[object, ...] = ()  # of this process: what `_parallel` gave it


def _set_state(state: tuple[object, ...]) -> None:
    global _state
    _state = state


def _merge(batch: Sequence[str]) -> list[list[str]]:
    markup, name, merger = _state
    assert isinstance(merger, Merger)
    cut = tokenizer.load(str(name))
    return [merger(cut(plain(record, bool(markup)))) for record in batch]


def _count(batch: Sequence[str]) -> Counter[str]:
    return Counter(itertools.chain.from_iterable(_merge(batch)))


def _encode(batch: Sequence[str]) -> list[Sentence]:
    markup, vocabulary, longest = _state
    assert isinstance(vocabulary, Vocabulary)
    assert isinstance(longest, int)
    cut = tokenizer.load(vocabulary.tokenizer)
    found = []
    for record in batch:
        numbers = vocabulary.encode(cut(plain(record, bool(markup))))
        found += [numbers[i : i + longest] for i in range(0, len(numbers), longest)]
    return [s for s in found if len(s) > 1]
