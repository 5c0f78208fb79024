"""`psdevise data text`: a vocabulary and an encoded corpus from any text, in a shuffled order of sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from psdevise import store
from psdevise.data import corpus, vocabulary
from psdevise.data.corpus import Sentence
from psdevise.data.vocabulary import Vocabulary, VocabularyOptions

BUFFER_SENTENCES = 20_000


def prepare(
    source: str,
    out: str,
    options: VocabularyOptions,
    keep: list[str],
    column: str | None,
    seed: int,
    on_progress: Callable[[int], None] = lambda sentences: None,
) -> dict[str, Any]:
    """Writes OUT/vocabulary.parquet, OUT/corpus.parquet and, last, OUT/manifest.json; a finished folder of
    the same plan is left as it is, and a counted vocabulary is not counted again.

    Raises:
        DataError: broken text, or no word that is frequent enough.
    """
    plan = {
        "source": store.sha256(source),
        "keep": keep,
        "column": column,
        "seed": seed,
        "options": vars(options),
    }
    plan["options"] = {k: v for k, v in vars(options).items() if k != "processes"}
    manifest_path, plan_path = store.join(out, "manifest.json"), store.join(out, "plan.json")
    if store.exists(manifest_path) and store.read_json(manifest_path)["plan"] == plan:
        found: dict[str, Any] = store.read_json(manifest_path)
        return found
    vocabulary_path = store.join(out, "vocabulary.parquet")
    if store.exists(plan_path) and store.read_json(plan_path) == plan and store.exists(vocabulary_path):
        terms = Vocabulary.load(vocabulary_path)
    else:
        terms = vocabulary.count(source, options, keep, column)
        terms.save(vocabulary_path)
        store.write_json(plan_path, plan)
    parts = vocabulary.sentences(source, terms, options, column)
    sentences, words = corpus.write(
        store.join(out, "corpus.parquet"),
        shuffled(_counted(parts, on_progress), np.random.default_rng([seed, 13])),
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


def _counted(parts: Iterator[list[Sentence]], on_progress: Callable[[int], None]) -> Iterator[list[Sentence]]:
    total = 0
    for part in parts:
        total += len(part)
        on_progress(total)
        yield part
