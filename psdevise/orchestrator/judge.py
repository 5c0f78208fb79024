"""The phases after training: the index of labels, and the evaluation on the test pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save as save_safetensors

from psdevise import scores, store
from psdevise.data.pictures import PictureTable, decode
from psdevise.evaluation import evaluate, result, retrieval
from psdevise.evaluation.evaluate import Scored, Setting
from psdevise.evaluation.pictures import score_all
from psdevise.labels import vectors as word_vectors
from psdevise.models.core import CoreOptions, normalise
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.learn import known_labels, learned
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.prepare import (
    label_space,
    label_vectors,
    load_hierarchy,
    load_vectors,
    prepared,
    progress,
    split_of,
)
from psdevise.orchestrator.targets import system_groups, system_terms, training_mean, words_of
from psdevise.phases.joint import load_devise, unit_vectors
from psdevise.phases.visual import load_softmax
from psdevise.systems import Pictures, System
from psdevise.systems.baselines import WORDLESS, on_core, recipe
from psdevise.systems.embedding import BATCH, EmbeddingSystem
from psdevise.systems.finished import Finished
from psdevise.systems.own import is_own
from psdevise.systems.recipe import Values
from psdevise.systems.softmax import SoftmaxSystem

MAP_PICTURES = 1200


@dataclass(frozen=True)
class MakeIndex:
    """Everything that `psdevise.load` needs of labels and words: unit vectors by name, of a label a row for each of its
    terms."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        inputs = words_of(self.options, inputs, "devise")
        names, matrix = label_vectors(inputs)
        mean = training_mean(inputs, names, matrix) if self.options.joint.centre else None
        own = system_terms(self.options, inputs, "devise")
        rows = tuple(name for name in names for _ in own[name])
        labels = word_vectors.WordVectors(rows, np.concatenate([own[name] for name in names]))
        word_vectors.save_parquet(labels, store.join(folder, "labels.parquet"))
        terms = load_vectors(self.options, inputs)
        whole = word_vectors.WordVectors(terms.terms, unit_vectors(terms.matrix, mean))
        word_vectors.save_parquet(whole, store.join(folder, "terms.parquet"))
        return {"labels": len(names), "terms": len(whole.terms), "dim": whole.dim}


@dataclass(frozen=True)
class Evaluate:
    """Reads the test pictures once and writes results, the sheet of examples and what the maps show."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        options = self.options
        split = split_of(inputs)
        for phase in inputs.values():
            split.check_unseen(phase.figures.get("trained_on", ()))
        classes = tuple(inputs["images"].figures["classes"])
        systems = self._systems(inputs)
        test = prepared(inputs["images"].folder, "test")
        report = progress(context, "evaluate")
        size, batch = options.visual.core.size, options.evaluate.batch
        scored, rows = score_all(test, range(test.rows), classes, systems, size, batch, report, options.evaluate.crops)
        setting = Setting(
            options.name,
            options.seed,
            split,
            label_space(options, inputs),
            load_hierarchy(options, inputs),
            options.evaluate,
            self._biases(inputs, systems),
            self._tie_groups(inputs, classes),
        )
        found = [*evaluate.results(scored, systems, setting), *retrieval.results(scored, systems, setting)]
        store.write_json(store.join(folder, "results.json"), result.plain(found))
        store.write_json(store.join(folder, "comparisons.json"), evaluate.comparisons(scored, systems, setting))
        each = {s.name: [p._asdict() for p in retrieval.of_unseen(scored, s.name, setting)] for s in systems}
        store.write_json(store.join(folder, "retrieval.json"), each)
        store.write_json(store.join(folder, "curve.json"), evaluate.curves(scored, systems, setting))
        store.write_bytes(store.join(folder, "doctor.json"), store.read_bytes(inputs["labels"].path("doctor.json")))
        self._sheet(folder, test, scored, rows, setting)
        self._maps(folder, inputs, systems, test, scored, rows, setting)
        about = evaluate.about(scored, systems, setting)
        store.write_json(store.join(folder, "about.json"), about)
        return {"pictures": len(rows), "tied": scores.tied(setting.groups["devise"]), **about}

    def _tie_groups(self, inputs: Inputs, classes: tuple[str, ...]) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
        found = {}
        for name in ("devise", *self.options.baselines):
            # A user's own system need not compare the labels' vectors.
            if name not in WORDLESS and not is_own(name):
                own = words_of(self.options, inputs, name)
                found[name] = system_groups(self.options, own, name, classes)
        return found

    def _systems(self, inputs: Inputs) -> list[System]:
        core = self.options.visual.core
        systems: list[System] = []
        outputs = _CoreOutputs(inputs, core)
        for name in ("devise", *self.options.baselines):
            if name == "softmax":
                module = load_softmax(inputs["visual"].path("model.safetensors"), core)
                systems.append(SoftmaxSystem(module, core, inputs["images"].figures["seen"]))
                continue
            if name in on_core(self.options.baselines):
                systems.append(self._on_core(name, inputs, outputs))
                continue
            devise = load_devise(inputs[f"joint-{name}"].path("model.safetensors"), core)
            own = words_of(self.options, inputs, name)
            systems.append(EmbeddingSystem(name, devise, core, system_terms(self.options, own, name)))
        return systems

    def _on_core(self, name: str, inputs: Inputs, outputs: _CoreOutputs) -> Finished:
        return Finished(recipe(name), learned(name, inputs), known_labels(self.options, inputs), outputs)

    def _biases(self, inputs: Inputs, systems: list[System]) -> dict[str, float]:
        """Calibration biases from validation pictures: the tuning classes stand for the unseen ones."""
        figures = inputs["images"].figures
        if not figures["tune"]:
            return {}
        train = prepared(inputs["images"].folder, "train")
        rows = np.flatnonzero(train.source_rows() >= figures["validation_from"]).tolist()
        classes = tuple(figures["seen"])
        embedding = [s for s in systems if s.name != "softmax"]
        size, batch = self.options.visual.core.size, self.options.evaluate.batch
        crops = self.options.evaluate.crops
        scored, _ = score_all(train, rows, classes, embedding, size, batch, lambda done, of: None, crops)
        is_seen = ~np.isin(classes, figures["tune"])
        groups = self._tie_groups(inputs, classes)
        each = np.arange(len(classes))
        levelled = {s.name: scores.level(scored.by_system[s.name], groups.get(s.name, each)) for s in embedding}
        return {
            name: scores.calibration(matrix, scored.true, is_seen).best_bias()
            for name, matrix in levelled.items()
            if len(scored.true)
        }

    def _sheet(self, folder: str, test: PictureTable, scored: Scored, rows: list[int], setting: Setting) -> None:
        """Pictures with the top-5 of DeViSE and of softmax side by side (the paper's Figure 2)."""
        rng = np.random.default_rng(setting.seed)
        half = setting.options.pictures_on_sheet // 2
        chosen: list[int] = []
        for classes in (setting.split.seen, setting.split.unseen):
            members = np.flatnonzero(np.isin(np.array(scored.classes)[scored.true], classes))
            if len(members):
                chosen += rng.choice(members, min(half, len(members)), replace=False).tolist()
        sheet = []
        for i in chosen:
            picture = test.read(rows[i], rows[i] + 1)[0]
            label = scored.classes[scored.true[i]]
            entry: dict[str, Any] = {"id": picture.id, "label": label, "seen": label in setting.split.seen}
            entry["image"] = _data_uri(decode(picture.data, self.options.visual.core.size))
            for system in ("devise", "softmax"):
                if system in scored.by_system:
                    row = scored.by_system[system][i]
                    best = [b for b in np.argsort(-row, kind="stable")[:5] if np.isfinite(row[b])]
                    entry[system] = [[scored.classes[b], float(row[b])] for b in best]
            sheet.append(entry)
        store.write_json(store.join(folder, "samples.json"), sheet)

    def _maps(
        self,
        folder: str,
        inputs: Inputs,
        systems: list[System],
        test: PictureTable,
        scored: Scored,
        rows: list[int],
        setting: Setting,
    ) -> None:
        devise = next(s for s in systems if isinstance(s, EmbeddingSystem) and s.name == "devise")
        rng = np.random.default_rng(setting.seed)
        chosen = sorted(rng.choice(len(rows), min(MAP_PICTURES, len(rows)), replace=False).tolist())
        wanted = {rows[i]: i for i in chosen}
        pixels, labels = [], []
        for start in range(0, test.rows, 500):
            for picture in test.read(start, min(start + 500, test.rows)):
                if picture.row in wanted:
                    pixels.append(decode(picture.data, self.options.visual.core.size))
                    labels.append(scored.classes[scored.true[wanted[picture.row]]])
        tensors = {
            "label_vectors": devise.label_matrix(scored.classes),
            "image_embeddings": devise.embed(np.stack(pixels)),
        }
        store.write_bytes(store.join(folder, "map.safetensors"), save_safetensors(tensors))
        hierarchy, wnids, seen = setting.hierarchy, setting.space.wnids, set(setting.split.seen)
        parents = [
            (hierarchy.parents.get(wnids.get(c, ""), [""])[0] if hierarchy is not None else "") for c in scored.classes
        ]
        about = {
            "labels": list(scored.classes),
            "seen": [c in seen for c in scored.classes],
            "parent": parents,
            "image_labels": labels,
            "image_seen": [c in seen for c in labels],
        }
        store.write_json(store.join(folder, "map.json"), about)


class _CoreOutputs:
    """The finished core's outputs, computed once for all systems that score the same pictures."""

    def __init__(self, inputs: Inputs, core: CoreOptions) -> None:
        self._inputs, self._options = inputs, core
        self._pictures: Pictures | None = None
        self._values: Values = np.zeros((0, 0), np.float32)

    def __call__(self, pictures: Pictures) -> Values:
        if pictures is not self._pictures:
            with torch.inference_mode():
                parts = [
                    self._core(normalise(pictures[start : start + BATCH], self._options)).float().numpy()
                    for start in range(0, len(pictures), BATCH)
                ]
            self._values = np.concatenate(parts)
            self._pictures = pictures
        return self._values

    @cached_property
    def _core(self) -> torch.nn.Module:
        return load_softmax(self._inputs["visual"].path("model.safetensors"), self._options).core


def _data_uri(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
