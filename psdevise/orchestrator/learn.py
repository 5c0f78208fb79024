"""The phases of systems that learn from the finished core's outputs (`psdevise.systems.recipe`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from psdevise import store
from psdevise.errors import ConfigError
from psdevise.orchestrator.fit import NUMBERS, fit
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.targets import system_vectors
from psdevise.phases.joint import ProjectionOptions
from psdevise.systems import baselines
from psdevise.systems.recipe import Known, Learned, Lesson
from psdevise.worker.task import Task


@dataclass(frozen=True)
class Learn:
    """One system of `baselines`."""

    options: RunOptions
    system: str

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        recipe = baselines.recipe(self.system)
        if further := set(recipe.needs) - {"softmax"}:
            raise ConfigError(f"{self.system} needs {further.pop()}: a run has softmax only", where="baselines")

        def train(
            build: Callable[[], Task], part: ProjectionOptions, under_way: str
        ) -> Mapping[str, npt.NDArray[np.float32]]:
            name, number = phase_name(self.system), NUMBERS["projection"]
            done = fit(self.options, context, name, build, snapshots, part.downpour, part.optimizer, number=number)
            return done.parameters

        known = known_labels(self.options, inputs)
        fitted = {"softmax": _softmax_layer(inputs)} if recipe.needs else {}
        learned = recipe.fit(Lesson(known, inputs["features"].path("train.parquet"), folder, train, fitted))
        arrays = {name: np.ascontiguousarray(value) for name, value in learned.items()}
        store.write_bytes(store.join(folder, "learned.safetensors"), save_safetensors(arrays))
        return {"system": recipe.name, "trained_on": list(known.seen)}


def phase_name(system: str) -> str:
    """`system-NAME`; a user's own may have a name that is no file's."""
    return f"system-{re.sub(r'[^0-9A-Za-z]+', '-', system)}"


def learned(system: str, inputs: Inputs) -> Learned:
    """What `Learn` kept."""
    return load_safetensors(store.read_bytes(inputs[phase_name(system)].path("learned.safetensors")))


def known_labels(options: RunOptions, inputs: Inputs) -> Known:
    names, matrix = system_vectors(options, inputs, "devise")
    return Known(tuple(inputs["images"].figures["seen"]), dict(zip(names, matrix, strict=True)), options.seed)


def _softmax_layer(inputs: Inputs) -> Learned:
    """The one that the visual phase trained."""
    tensors = load_safetensors(store.read_bytes(inputs["visual"].path("model.safetensors")))
    return {"weight": tensors["head.weight"], "bias": tensors["head.bias"]}
