"""The joint phase of one system: the projection on the core's outputs, then core and projection together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as save_safetensors

from psdevise import store
from psdevise.data import features as feature_table
from psdevise.events import Validated
from psdevise.orchestrator import carried
from psdevise.orchestrator.artifacts import Artifact
from psdevise.orchestrator.fit import NUMBERS, fit
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.targets import system_targets, system_vectors, trains_labels, words_of
from psdevise.orchestrator.train import picture_source
from psdevise.phases import features as features_phase
from psdevise.phases import joint as joint_phase
from psdevise.phases import visual as visual_phase
from psdevise.phases.pictures import PictureSource

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Joint:
    """Where the labels' vectors are trained too, the artifact also holds what `language` and `labels` left as it is
    after that, under the same names."""

    options: RunOptions
    system: str

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        options = self._options()
        source = picture_source(inputs)
        targets_path = store.join(folder, "targets.safetensors")
        features = inputs["features"].path("train.parquet")
        name = f"joint-{self.system}"
        part, first_part = options.projection, f"{snapshots}/projection"

        drift: dict[str, float] = {}
        if trains_labels(self.options, self.system):
            projected, drift = carried.train(self.options, context, name, inputs, folder, first_part)
            inputs = words_of(self.options, {**inputs, name: Artifact(name, "", folder, {})}, self.system)
        system_targets(self.options, inputs, self.system, source.classes).write(targets_path)
        if not drift:
            build = joint_phase.BuildProjection(features, source.classes, targets_path, options)
            projected = dict(build().initial())
            if part.epochs:
                number = NUMBERS["projection"]
                done = fit(self.options, context, name, build, first_part, part.downpour, part.optimizer, number=number)
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
                number=NUMBERS["fine-tuning"],
            )
            store.write_bytes(path, save_safetensors({**core, **projected, **done.parameters}))
        else:
            store.write_bytes(path, store.read_bytes(first))
        names, matrix = system_vectors(self.options, inputs, self.system)
        row = {name: i for i, name in enumerate(names)}
        vectors = matrix[[row[c] for c in source.classes]]
        about = {"dim": int(vectors.shape[1]), "trained_on": list(source.classes)}
        return about | drift | self._validate(context, name, features, projected, vectors, source)

    def _options(self) -> joint_phase.JointOptions:
        return replace(self.options.joint, loss="l2") if self.system == "l2" else self.options.joint

    def _validate(
        self,
        context: Context,
        name: str,
        features: str,
        projected: dict[str, Floats],
        vectors: Floats,
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
