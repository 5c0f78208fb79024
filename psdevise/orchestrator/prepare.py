"""The phases before training: the drawn world, the image tables, the vocabulary, the label vectors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from psdevise import store
from psdevise.data import prepare_text, world
from psdevise.data.pictures import Columns, PictureTable, classes
from psdevise.data.prepare import PrepareOptions, prepare, shared
from psdevise.data.vocabulary import PHRASE_MARK, Vocabulary
from psdevise.errors import DataError, Interrupted, LabelError
from psdevise.events import Notice, Progress
from psdevise.labels import vectors as word_vectors
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.resolve import Resolution, all_terms, resolve, summary
from psdevise.labels.space import LabelSpace, read_list
from psdevise.labels.split import Split, read_names, read_split
from psdevise.orchestrator.graph import Context, Inputs
from psdevise.orchestrator.options import RunOptions
from psdevise.phases.targets import Targets


@dataclass(frozen=True)
class World:
    """Draws the embedded default."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        options = self.options.data.world
        assert options is not None
        report = progress(context, "world")
        paths = world.build(options, folder, report)
        return {"paths": {name: path.rsplit("/", 1)[-1] for name, path in paths.items()}}


@dataclass(frozen=True)
class Images:
    """Both image tables in a shuffled order, twins and broken pictures reported, and the class split."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        images, labels = self.options.data.images, self.options.labels
        train, test = image_paths(self.options, inputs)
        manifests = {}
        for part, path in {"train": train, "test": test}.items():
            prepare_options = PrepareOptions(
                path,
                store.join(folder, part),
                id_column=images.id_column,
                image_column=images.image_column,
                labels_column=images.labels_column,
                seed=self.options.seed,
                max_broken=images.max_broken,
                processes=images.processes,
            )
            manifests[part] = prepare(prepare_options, progress(context, "images"))
        both = shared(*(store.join(folder, part) for part in manifests))
        for text in _notices(manifests, both):
            context.on_event(Notice("images", text))
        tables = [prepared(folder, part) for part in ("train", "test")]
        names = classes(tables)
        unseen = input_path(self.options, inputs, "unseen", labels.unseen)
        split = read_split(names, unseen)
        before = [] if labels.trained is None else read_list(labels.trained)
        split.check_unseen(before)
        tune = input_path(self.options, inputs, "tune", labels.tune)
        tune_names = read_names(tune, split.seen) if tune else []
        _refuse_empty(split, tables)
        return {
            "classes": list(names),
            "split": split.name,
            "seen": list(split.seen),
            "unseen": list(split.unseen),
            "tune": tune_names,
            "trained_on": before,
            "rows": {part: table.rows for part, table in zip(manifests, tables, strict=True)},
            "validation_from": int(tables[0].source_rows().max()) + 1 - self._validation_rows(tables[0]),
            "twins": {part: m["twins"] for part, m in manifests.items()} | {"between": both},
            "skipped": {part: len(m["skipped"]) for part, m in manifests.items()},
        }

    def _validation_rows(self, train: PictureTable) -> int:
        rows = self.options.data.images.validation_rows
        if self.options.data.world is not None and rows == 0:
            return train.rows // 10
        if rows >= train.rows:
            raise DataError(
                f"{rows} of {train.rows} training pictures are kept back", where="data.images.validation_rows"
            )
        return rows


@dataclass(frozen=True)
class Words:
    """Vocabulary with the labels' multi-word terms, and the encoded corpus."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        path = input_path(self.options, inputs, "text", self.options.data.text)
        assert path is not None
        column = self.options.data.text_column
        spaces = [_kept_labels(self.options, inputs), *map(LabelSpace.read, self.options.vocabulary.keep)]
        kept = [term for space in spaces for term in space.all_terms()]
        report = progress(context, "vocabulary")
        manifest = prepare_text.prepare(path, folder, self.options.vocabulary, kept, column, self.options.seed, report)
        found = Vocabulary.load(store.join(folder, "vocabulary.parquet"))
        named = [any(found.term_of(t) in found.index for t in space.terms[n]) for space in spaces for n in space.names]
        counts = {k: manifest[k] for k in ("terms", "sentences", "words")}
        return counts | {
            "multi_word_terms": sum(PHRASE_MARK in term for term in found.terms),
            "labels": len(named),
            "labels_with_a_term": sum(named),
        }


@dataclass(frozen=True)
class Labels:
    """The vocabulary doctor: each label's vector and how it was found."""

    options: RunOptions

    def __call__(self, context: Context, inputs: Inputs, folder: str, snapshots: str) -> dict[str, Any]:
        matrix, rows = write_labels(self.options, inputs, folder)
        return {"summary": summary(rows), "dim": int(matrix.shape[1])}


def write_labels(
    options: RunOptions, inputs: Inputs, folder: str
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], list[Resolution]]:
    """Resolves the classes anew, and writes their vectors, how they were found and, where they are drawn, their
    terms."""
    space, terms = label_space(options, inputs), load_vectors(options, inputs)
    cut = term_of(inputs, terms)
    matrix, rows = resolve(space, terms, options.labels.resolve, load_hierarchy(options, inputs), cut)
    table = word_vectors.WordVectors(space.names, matrix)
    store.write_json(store.join(folder, "doctor.json"), {"rows": [vars(r) for r in rows], "summary": summary(rows)})
    word_vectors.save_parquet(table, store.join(folder, "labels.parquet"))
    if options.labels.resolve.terms == "sample":
        every, owner = all_terms(space, terms, options.labels.resolve, matrix, cut)
        Targets(every, owner).write(store.join(folder, "terms.safetensors"))
    return matrix, rows


def term_of(inputs: Inputs, vectors: word_vectors.WordVectors) -> Callable[[str], str]:
    """How a phrase stands among the terms."""
    if "vocabulary" not in inputs:
        return vectors.term_of
    return Vocabulary.load(inputs["vocabulary"].path("vocabulary.parquet")).term_of


def load_vectors(options: RunOptions, inputs: Inputs) -> word_vectors.WordVectors:
    """All terms' vectors, as the language phase left them, with their counts where they were trained."""
    found = word_vectors.load(inputs["language"].path("vectors.bin"))
    if "vocabulary" not in inputs:
        return found
    counts = Vocabulary.load(inputs["vocabulary"].path("vocabulary.parquet")).counts
    return word_vectors.WordVectors(found.terms, found.matrix, counts)


def load_hierarchy(options: RunOptions, inputs: Inputs) -> Hierarchy | None:
    path = input_path(options, inputs, "is_a", options.labels.is_a)
    return None if path is None else Hierarchy.read(path)


def _kept_labels(options: RunOptions, inputs: Inputs) -> LabelSpace:
    """The pictures' labels; without pictures those of the label table."""
    if "images" in inputs:
        return label_space(options, inputs)
    return LabelSpace.of(()) if options.labels.table is None else LabelSpace.read(options.labels.table)


def label_space(options: RunOptions, inputs: Inputs) -> LabelSpace:
    names = inputs["images"].figures["classes"]
    return LabelSpace.of(names, input_path(options, inputs, "labels", options.labels.table))


def split_of(inputs: Inputs) -> Split:
    figures = inputs["images"].figures
    return Split(figures["split"], tuple(figures["seen"]), tuple(figures["unseen"]))


def image_paths(options: RunOptions, inputs: Inputs) -> tuple[str, str]:
    train = input_path(options, inputs, "train", options.data.images.train)
    test = input_path(options, inputs, "test", options.data.images.test)
    assert train is not None
    assert test is not None
    return train, test


def input_path(options: RunOptions, inputs: Inputs, name: str, path: str | None) -> str | None:
    """The user's own path, or the drawn world's file of that name."""
    if path:
        return path
    if options.data.world is None or "world" not in inputs:
        return None
    return inputs["world"].path(inputs["world"].figures["paths"][name])


def prepared(folder: str, part: str) -> PictureTable:
    return PictureTable(store.join(folder, part), Columns())


def progress(context: Context, phase: str) -> Any:
    """A callback (done, of) that emits Progress at most twice a second, and ends the phase when the user stops.

    Raises:
        Interrupted: by the callback. Such a phase is made anew, or from what it keeps itself.
    """
    begin = time.monotonic()
    shown = 0.0

    def report(done: int, of: int) -> None:
        nonlocal shown
        if context.interrupt.is_set():
            raise Interrupted("stopped by the user", where=phase, mend="give the same command again to go on")
        now = time.monotonic()
        if now - shown > 0.5 or done >= of:
            shown = now
            seconds = max(now - begin, 1e-9)
            left = seconds * (of - done) / done if done else None
            context.on_event(Progress(phase, done / max(of, 1), count=done, rate=done / seconds, left=left))

    return report


def _refuse_empty(split: Split, tables: list[PictureTable]) -> None:
    """A seen class needs training pictures, an unseen one test pictures."""
    have = [{name for row in table.labels() for name in row} for table in tables]
    for needed, present, what in ((split.seen, have[0], "training"), (split.unseen, have[1], "test")):
        empty = [n for n in needed if n not in present]
        if empty:
            raise LabelError(
                f"{len(empty)} classes have no {what} picture: {', '.join(empty[:5])}",
                where="data.images",
                mend="remove them, or add pictures",
            )


def _notices(manifests: dict[str, dict[str, Any]], both: dict[str, int]) -> list[str]:
    texts = []
    for part, manifest in manifests.items():
        twins = manifest["twins"]
        if twins["repeated"]:
            texts.append(f"{part}: {twins['repeated']} repeated pictures, {twins['contradictory']} with other labels")
        if manifest["skipped"]:
            texts.append(f"{part}: {len(manifest['skipped'])} broken pictures were skipped")
    if both["shared"]:
        texts.append(f"{both['shared']} pictures are in train and in test, {both['contradictory']} with other labels")
    return texts


def label_vectors(inputs: Inputs) -> tuple[tuple[str, ...], np.ndarray[Any, np.dtype[np.float32]]]:
    """The classes and their raw vectors [classes, dim]."""
    found = word_vectors.load(inputs["labels"].path("labels.parquet"))
    return found.terms, found.matrix
