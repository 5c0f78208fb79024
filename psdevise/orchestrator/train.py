"""The phases that train before the joint one: language, visual, and the features of the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as save_safetensors

from psdevise import store
from psdevise.data import features as feature_table
from psdevise.data.corpus import Corpus
from psdevise.data.pictures import Columns
from psdevise.data.vocabulary import Vocabulary
from psdevise.events import Validated
from psdevise.labels import vectors as word_vectors
from psdevise.orchestrator.fit import fit
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.prepare import progress
from psdevise.phases import carried as carried_phase
from psdevise.phases import features as features_phase
from psdevise.phases import language as language_phase
from psdevise.phases import visual as visual_phase
from psdevise.phases.pictures import PictureSource


@dataclass(frozen=True)
class Language:
    """Skip-gram through the parameter server, or vectors of the user's own."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        options = self.options.language
        if options.vectors is not None:
            found = word_vectors.load(options.vectors)
            found.save(store.join(folder, "vectors.bin"))
            return {"terms": len(found.terms), "dim": found.dim, "from": options.vectors.rsplit("/", 1)[-1]}
        corpus = inputs["vocabulary"].path("corpus")
        vocabulary = Vocabulary.load(inputs["vocabulary"].path("vocabulary.parquet"))
        counts = tuple(vocabulary.counts.tolist())
        build = language_phase.BuildLanguage(corpus, counts, options, self.options.seed)
        trained = fit(self.options, context, "language", build, snapshots, options.downpour, options.optimizer, "words")
        vectors = language_phase.word_vectors(vocabulary.terms, counts, trained.parameters)
        vectors.save(store.join(folder, "vectors.bin"))
        if self.options.data.has_pictures:
            carried_phase.keep_tables(trained.parameters, store.join(folder, "tables.safetensors"))
        return {
            "terms": len(vectors.terms),
            "dim": vectors.dim,
            "sentences": Corpus(corpus).rows,
            "audit": trained.audit,
            "accumulators_doubled": language_phase.grown(trained.parameters, options.optimizer),
        }


@dataclass(frozen=True)
class Visual:
    """The core with its softmax layer; a frozen core trains the layer alone."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        options = self.options.visual
        build = visual_phase.BuildVisual(picture_source(inputs), options, self.options.seed)
        trained = fit(self.options, context, "visual", build, snapshots, options.downpour, options.optimizer)
        # What the shards do not hold (frozen parameters, integer buffers) comes from the module itself.
        whole = {**build().initial(), **trained.parameters}
        store.write_bytes(store.join(folder, "model.safetensors"), save_safetensors(whole))
        return {
            "classes": len(build.pictures.classes),
            "trained_on": list(build.pictures.classes),
            "audit": trained.audit,
        }


@dataclass(frozen=True)
class Features:
    """The core's outputs for all training pictures, and the softmax layer's validation figure."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        source = picture_source(inputs)
        core_options = self.options.visual.core
        module = visual_phase.load_softmax(inputs["visual"].path("model.safetensors"), core_options)
        path = store.join(folder, "train.parquet")
        report = progress(context, "features")
        features_phase.write(path, source, module.core, module.head.in_features, core_options, report)
        held_out = feature_table.read(features_phase.validation_path(path), keep=source.classes)
        right = _softmax_hits(module, held_out, source.classes)
        if len(right):
            context.on_event(Validated("visual", "softmax hit@1, validation", float(right.mean())))
        return {"rows": held_out.rows, "softmax_hit_1": float(right.mean()) if len(right) else None}


def picture_source(inputs: Inputs) -> PictureSource:
    figures = inputs["images"].figures
    return PictureSource(inputs["images"].path("train"), Columns(), tuple(figures["seen"]), figures["validation_from"])


def _softmax_hits(module: Any, held_out: feature_table.Features, classes: tuple[str, ...]) -> Any:
    if not held_out.rows:
        return np.zeros(0)
    with torch.inference_mode():
        best = module.head(torch.from_numpy(held_out.values)).argmax(dim=1).numpy()
    return np.array([classes[b] in row for b, row in zip(best, held_out.labels, strict=True)])
