"""The projection trained together with the words that it is compared with (`psdevise.phases.carried`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.evaluation.words import drift
from psdevise.events import Notice
from psdevise.labels.composition import Composition, compose
from psdevise.labels.resolve import Resolution
from psdevise.labels.vectors import WordVectors
from psdevise.orchestrator.artifacts import Artifact
from psdevise.orchestrator.fit import NUMBERS, fit
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.prepare import label_space, load_vectors, term_of, write_labels
from psdevise.phases import carried
from psdevise.phases.language import BuildLanguage, word_vectors

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
OTHERS, FREQUENT = 1000, 30_000  # terms that name no label, drawn from the most frequent ones


def train(
    options: RunOptions, context: Context, name: str, inputs: Inputs, folder: str, snapshots: str
) -> tuple[dict[str, Floats], dict[str, float]]:
    """Writes the vectors of all terms, and of the labels resolved anew, to `folder`.

    Returns: M's parameters, and how far the seen labels' terms, the unseen ones' and others have moved.
    """
    before = load_vectors(options, inputs)
    labels = {part: tuple(inputs["images"].figures[part]) for part in ("seen", "unseen")}
    composed = {part: _compose(options, inputs, before, names) for part, names in labels.items() if names}
    path = store.join(folder, "composition.safetensors")
    composed["seen"].write(path)
    assert before.counts is not None
    counts = tuple(before.counts.tolist())
    language, corpus = inputs["language"], inputs["vocabulary"].path("corpus")
    build = carried.BuildCarried(
        inputs["features"].path("train.parquet"),
        labels["seen"],
        path,
        BuildLanguage(corpus, counts, options.language, options.seed),
        language.path("vectors.bin"),
        language.path("tables.safetensors"),
        options.joint,
    )
    # Text asks for this: a fetch ahead would lack the block's own rows.
    downpour = replace(options.joint.projection.downpour, overlap=options.language.downpour.overlap)
    optimizer = replace(options.joint.projection.optimizer, table_rule="sum")
    done = fit(options, context, name, build, snapshots, downpour, optimizer, number=NUMBERS["projection"])
    words = word_vectors(before.terms, counts, done.parameters)
    words.save(store.join(folder, "vectors.bin"))
    write_labels(options, {**inputs, "language": Artifact(name, "", folder, {})}, folder)

    figures = _drift(before, words, {part: one.rows for part, one in composed.items()}, options.seed)
    kept = ", ".join(f"{name.rsplit('_', 1)[1]} {value:.0%}" for name, value in figures.items() if "kept" in name)
    context.on_event(Notice(name, f"of their ten nearest terms kept: {kept}"))
    fitted = {n: v for n, v in done.parameters.items() if n.startswith("projection.")}
    return fitted, figures


def _drift(before: WordVectors, after: WordVectors, rows: Mapping[str, Ints], seed: int) -> dict[str, float]:
    """Of the terms that stand in `rows` by part, and of some others."""
    terms = {part: [before.terms[row] for row in np.unique(own)] for part, own in rows.items()}
    named = {term for part in terms.values() for term in part}
    others = [term for term in before.terms[:FREQUENT] if term not in named]
    terms["others"] = [others[i] for i in np.random.default_rng([seed, 55]).permutation(len(others))[:OTHERS]]
    figures: dict[str, float] = {}
    for part, chosen in terms.items():
        if not chosen:
            continue
        moved = drift(before, after, chosen)
        figures |= {f"neighbours_kept_{part}": moved.neighbours_kept, f"cosine_to_before_{part}": moved.cosine}
    return figures


def _compose(options: RunOptions, inputs: Inputs, vectors: WordVectors, labels: tuple[str, ...]) -> Composition:
    found = [Resolution(**row) for row in store.read_json(inputs["labels"].path("doctor.json"))["rows"]]
    space, cut = label_space(options, inputs), term_of(inputs, vectors)
    return compose(labels, space, vectors, options.labels.resolve, found, cut)
