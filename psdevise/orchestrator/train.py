"""The phases that train: language, visual, features, joint. Each turns its task into a Job for the host."""

from __future__ import annotations

import os
from collections.abc import Callable
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
from psdevise.events import Notice, Validated
from psdevise.labels import vectors as word_vectors
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.prepare import progress
from psdevise.orchestrator.targets import system_targets, system_vectors
from psdevise.phases import features as features_phase
from psdevise.phases import joint as joint_phase
from psdevise.phases import language as language_phase
from psdevise.phases import visual as visual_phase
from psdevise.phases.pictures import PictureSource
from psdevise.runtime.job import Job, Trained
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.task import Task

NUMBERS = {"language": 1, "visual": 2, "projection": 3, "fine-tuning": 4}


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


@dataclass(frozen=True)
class Joint:
    """Projection on the core's outputs, then fine-tuning of both, for one system."""

    options: RunOptions
    system: str

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        options = self._options()
        source = picture_source(inputs)
        targets_path = store.join(folder, "targets.safetensors")
        system_targets(self.options, inputs, self.system, source.classes).write(targets_path)
        features = inputs["features"].path("train.parquet")
        name = f"joint-{self.system}"

        build = joint_phase.BuildProjection(features, source.classes, targets_path, options)
        start = build().initial()
        projected = dict(start)
        if options.projection.epochs:
            part = options.projection
            done = fit(
                self.options,
                context,
                name,
                build,
                f"{snapshots}/projection",
                part.downpour,
                part.optimizer,
                number=3,
            )
            projected |= done.parameters
        visual = visual_phase.load_softmax(inputs["visual"].path("model.safetensors"), self.options.visual.core)
        core = {f"core.{k}": v.numpy() for k, v in visual.core.state_dict().items()}
        first = store.join(folder, "projection.safetensors")
        store.write_bytes(first, save_safetensors({**core, **projected}))

        path = store.join(folder, "model.safetensors")
        if options.fine_tuning.epochs and not self.options.visual.core.frozen:
            tuning = options.fine_tuning
            tune = joint_phase.BuildFineTuning(source, first, targets_path, self.options.visual.core, options)
            done = fit(
                self.options,
                context,
                name,
                tune,
                f"{snapshots}/tuning",
                tuning.downpour,
                tuning.optimizer,
                number=4,
            )
            store.write_bytes(path, save_safetensors({**core, **projected, **done.parameters}))
        else:
            store.write_bytes(path, store.read_bytes(first))
        names, matrix = system_vectors(self.options, inputs, self.system)
        row = {name: i for i, name in enumerate(names)}
        vectors = matrix[[row[c] for c in source.classes]]
        about = {"dim": int(vectors.shape[1]), "trained_on": list(source.classes)}
        return about | self._validate(context, name, features, projected, vectors, source)

    def _options(self) -> joint_phase.JointOptions:
        from dataclasses import replace

        return replace(self.options.joint, loss="l2") if self.system == "l2" else self.options.joint

    def _validate(
        self,
        context: Context,
        name: str,
        features: str,
        projected: dict[str, Any],
        vectors: np.ndarray[Any, np.dtype[np.float32]],
        source: PictureSource,
    ) -> dict[str, Any]:
        """hit@1 of the projection alone on the pictures kept back."""
        held_out = feature_table.read(features_phase.validation_path(features), keep=source.classes)
        if not held_out.rows:
            return {}
        scores = held_out.values @ projected["projection.weight"].T @ vectors.T
        index = {c: i for i, c in enumerate(source.classes)}
        right = [index[next(v for v in row if v in index)] for row in held_out.labels]
        value = float((scores.argmax(axis=1) == right).mean())
        context.on_event(Validated(name, "hit@1 of the projection, validation", value))
        return {"projection_hit_1": value}


def fit(
    options: RunOptions,
    context: Context,
    phase: str,
    build: Callable[[], Task],
    snapshots: str,
    downpour: DownpourOptions,
    optimizer: OptimizerOptions,
    unit: str = "examples",
    number: int | None = None,
) -> Trained:
    """Trains one task on the run's host; what it cost is added to the phase's bill."""
    job = Job(
        run=context.run,
        phase=phase,
        build=build,
        snapshots=snapshots,
        incarnations=context.incarnations,
        seed=options.seed,
        phase_number=number or NUMBERS[phase],
        cluster=options.cluster,
        downpour=downpour,
        optimizer=optimizer,
        unit=unit,
        logs=_logs(context.folder),
    )
    trained = context.host.train(job, context.on_event, context.interrupt)
    bill = context.bills.setdefault(phase, {})
    for key, value in trained.bill.items():
        bill[key] = max(bill.get(key, 0.0), value) if key.startswith("peak") else bill.get(key, 0.0) + value
    if trained.audit["refused"]:
        context.on_event(Notice(phase, f"{trained.audit['refused']} examples were refused by the shards"))
    return trained


def _logs(folder: str) -> str:
    """Absolute, since actors have a working directory of their own."""
    path = store.join(folder, "logs")
    return os.path.abspath(store.filesystem(path)[1]) if store.is_local(path) else ""


def picture_source(inputs: Inputs) -> PictureSource:
    figures = inputs["images"].figures
    return PictureSource(inputs["images"].path("train"), Columns(), tuple(figures["seen"]), figures["validation_from"])


def _softmax_hits(module: Any, held_out: feature_table.Features, classes: tuple[str, ...]) -> Any:
    if not held_out.rows:
        return np.zeros(0)
    with torch.inference_mode():
        best = module.head(torch.from_numpy(held_out.values)).argmax(dim=1).numpy()
    return np.array([classes[b] in row for b, row in zip(best, held_out.labels, strict=True)])
