"""`psdevise data text`: a vocabulary and an encoded corpus from any text, in a shuffled order of sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from psdevise import store
from psdevise.data import corpus, counting
from psdevise.data.corpus import Sentence
from psdevise.data.text import Text
from psdevise.data.vocabulary import Vocabulary, VocabularyOptions
from psdevise.errors import DataError

BUFFER_SENTENCES = 20_000


def prepare(
    source: str,
    out: str,
    options: VocabularyOptions,
    keep: list[str],
    column: str | None,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Writes OUT/vocabulary.parquet, OUT/corpus/part-*.parquet and, last, OUT/manifest.json; a finished folder of
    the same plan is left as it is, and a counted vocabulary is not counted again.

    Args:
        keep: label terms; `options.keep` is not looked at.
        on_progress: called with (words seen, words there will be in all passes over the text, an estimate).

    Raises:
        DataError: broken text, no word that is frequent enough, or no line with two of them.
    """
    plan = {
        "source": store.sha256(source),
        "keep": keep,
        "column": column,
        "seed": seed,
        "options": {k: v for k, v in vars(options).items() if k not in ("processes", "keep")},
    }
    manifest_path, plan_path = store.join(out, "manifest.json"), store.join(out, "plan.json")
    if store.exists(manifest_path) and store.read_json(manifest_path)["plan"] == plan:
        found: dict[str, Any] = store.read_json(manifest_path)
        return found
    vocabulary_path = store.join(out, "vocabulary.parquet")
    text = Text(source, column)
    counted = store.exists(plan_path) and store.read_json(plan_path) == plan and store.exists(vocabulary_path)
    watch = _Watch(text, 1 if counted else counting.passes(options) + 1, on_progress)
    if counted:
        terms = Vocabulary.load(vocabulary_path)
    else:
        terms = counting.count(text, options, keep, watch)
        terms.save(vocabulary_path)
        store.write_json(plan_path, plan)
    sentences, words = corpus.write(
        store.join(out, "corpus"),
        shuffled(_watched(counting.sentences(text, terms, options), watch), np.random.default_rng([seed, 13])),
    )
    if not sentences:
        raise DataError(
            "no line holds two words of the vocabulary, and a word alone has no neighbours",
            where=source,
            mend="lower min_count (vocabulary.min_count, or --min-count), or give more text",
        )
    manifest = {
        "plan": plan,
        "terms": terms.size,
        "sentences": sentences,
        "words": words,
        "labels_found": sum(terms.term_of(k) in terms.index for k in keep),
    }
    store.write_json(manifest_path, manifest)
    store.remove(plan_path)
    return manifest


def shuffled(parts: Iterator[list[Sentence]], rng: np.random.Generator) -> Iterator[list[Sentence]]:
    """Sentences through a buffer from which each one that leaves is drawn at random: near ones part ways,
    in bounded memory; slices are then leased in an order drawn anew each epoch."""
    held: list[Sentence] = []
    for part in parts:
        held += part
        while len(held) > BUFFER_SENTENCES:
            out = []
            for i in rng.integers(0, len(held), len(held) // 2):
                place = int(i) % len(held)
                held[place], held[-1] = held[-1], held[place]
                out.append(held.pop())
            yield out
    yield [held[i] for i in rng.permutation(len(held))]


class _Watch:
    """Adds up the words of several passes over a text; how many there will be follows from how often it was read."""

    def __init__(self, text: Text, passes: int, on_progress: Callable[[int, int], None]) -> None:
        self._text, self._passes, self._on_progress, self._words = text, passes, on_progress, 0

    def __call__(self, words: int) -> None:
        self._words += words
        share = max(self._text.times, 1e-9) / self._passes
        self._on_progress(self._words, max(self._words, round(self._words / share)))


def _watched(parts: Iterator[list[Sentence]], watch: _Watch) -> Iterator[list[Sentence]]:
    for part in parts:
        watch(sum(map(len, part)))
        yield part
