"""A finished run's systems as files, for the ImageNet protocol: pictures embedded, and the vectors of any labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from psdevise import config, store
from psdevise.data import features
from psdevise.data.features import Features
from psdevise.data.pictures import PictureTable, crops_of, decode
from psdevise.data.vocabulary import Vocabulary
from psdevise.errors import DataError, LabelError
from psdevise.evaluation.embedded import Embedded
from psdevise.labels import vectors as word_vectors
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.resolve import ResolveOptions, all_terms, resolve
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors
from psdevise.models.core import CoreOptions
from psdevise.orchestrator.run import part_of
from psdevise.phases.joint import load_devise, random_vectors, unit_vectors
from psdevise.phases.visual import load_softmax
from psdevise.systems.embedding import EmbeddingSystem
from psdevise.systems.softmax import SoftmaxSystem

ROWS = 250  # pictures that are decoded and embedded at a time

Embed = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def embed(
    run: str,
    pictures: Mapping[str, str],
    space: LabelSpace,
    is_a: str,
    folder: str,
    crops: int = 1,
    systems: Sequence[str] = ("softmax", "devise", "random"),
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Embedded]:
    """Writes those of `systems` that the run has, each to a folder of its own; what was made there of the same run,
    pictures, labels, terms and hierarchy is kept.

    Args:
        pictures: part → image table whose labels are among `space`.
        space: the labels that are to be named, with their terms.
        crops: 10: the mean over ten crops of each picture (Frome et al. 2013, footnote 6).

    Raises:
        DataError: no finished run.
        LabelError: the run's classes are not labels of `space`; labels without a vector.
    """
    finished = _Run(run)
    unknown = sorted(set(finished.trained_on) - set(space.names))
    if unknown:
        raise LabelError(
            f"{len(unknown)} classes of the run are not in the lists: {', '.join(map(repr, unknown[:5]))}",
            where=run,
            mend="train on pictures whose labels are wnids",
        )
    tables = {part: PictureTable(path) for part, path in pictures.items()}
    content = {part: table.fingerprint for part, table in tables.items()}
    terms = [(name, space.terms[name]) for name in space.names]
    parts = store.read_json(store.join(run, "tagger.json"))
    key = store.key_of([parts, content, crops, terms, Hierarchy.read(is_a).hash])
    names = [name for name in systems if name != "random" or part_of(run, "random") is not None]
    places = {name: store.join(folder, f"{name}-{finished.name}-{key}") for name in names}
    missing = [name for name, place in places.items() if not store.exists(store.join(place, "system.json"))]
    # Of all systems before any picture, which may take hours: a label without a vector is found here.
    vectors = {name: finished.labels(name, space, is_a) for name in missing}
    found = []
    for name, place in places.items():
        if name in vectors:
            labels = vectors[name]
            variant = "default" if name == "softmax" else f"{labels.dim}-D"
            act, width = finished.embedder(name)
            for part, table in tables.items():
                target = store.join(place, f"{part}.parquet")
                if not store.exists(target):
                    features.write(target, _pass(table, act, finished.core.size, crops, on_progress), width)
            Embedded(place, name, variant, finished.all_trained_on).write(labels)
        found.append(Embedded.open(place))
    return found


def trained_on(run: str) -> tuple[str, ...]:
    """Every class that something of a finished run was trained on, a core of the user's own before it too.

    Raises:
        DataError: no finished run.
    """
    return _Run(run).all_trained_on


@dataclass(frozen=True)
class _Run:
    folder: str

    def __post_init__(self) -> None:
        if part_of(self.folder, "joint") is None:
            raise DataError("no finished run here", where=self.folder, mend="psdevise run goes on with it")

    @property
    def name(self) -> str:
        return self.folder.rstrip("/").rsplit("/", 1)[-1]

    @cached_property
    def _about(self) -> dict[str, object]:
        found: dict[str, object] = store.read_json(store.join(self.folder, "run.json"))
        return found

    @cached_property
    def _config(self) -> dict[str, dict[str, object]]:
        return self._about["config"]  # type: ignore[return-value]

    @cached_property
    def core(self) -> CoreOptions:
        return config.build(CoreOptions, self._config["visual"]["core"])  # type: ignore[arg-type]

    @cached_property
    def trained_on(self) -> tuple[str, ...]:
        """In the order of the softmax layer."""
        return self._trained_on("visual")

    @cached_property
    def all_trained_on(self) -> tuple[str, ...]:
        """Also those that a core of the user's own was trained on before (`labels.trained`)."""
        return tuple(dict.fromkeys([*self.trained_on, *self._trained_on("images")]))

    def embedder(self, system: str) -> tuple[Embed, int]:
        """Pictures uint8 [n, size, size, 3] → features [n, width], and the width."""
        if system == "softmax":
            module = load_softmax(self._path("visual", "model.safetensors"), self.core)
            return SoftmaxSystem(module, self.core, self.trained_on).probabilities, len(self.trained_on)
        part = "joint" if system == "devise" else system
        devise = load_devise(self._path(part, "model.safetensors"), self.core)
        return EmbeddingSystem(system, devise, self.core, {}).embed, devise.projection.out_features

    def labels(self, system: str, space: LabelSpace, is_a: str) -> WordVectors:
        """The vectors of all labels that the system can name."""
        if system == "softmax":
            return WordVectors(self.trained_on, np.eye(len(self.trained_on), dtype=np.float32))
        if system == "random":
            own = word_vectors.load(self._path("index", "labels.parquet"), repeats=True)
            names, seed = tuple(dict.fromkeys(own.terms)), int(self._about["seed"])  # type: ignore[call-overload]
            return WordVectors(names, random_vectors(len(names), own.dim, seed))
        terms = word_vectors.load(self._path("language", "vectors.bin"))
        cut: Callable[[str], str] = terms.term_of
        if part_of(self.folder, "vocabulary") is not None:
            vocabulary = Vocabulary.load(self._path("vocabulary", "vocabulary.parquet"))
            terms, cut = WordVectors(terms.terms, terms.matrix, vocabulary.counts), vocabulary.term_of
        options = config.build(ResolveOptions, self._config["labels"]["resolve"])  # type: ignore[arg-type]
        matrix, _ = resolve(space, terms, options, Hierarchy.read(is_a), cut)
        mean = None
        if self._config["joint"]["centre"]:
            row = {name: i for i, name in enumerate(space.names)}
            mean = np.asarray(matrix[[row[c] for c in self.trained_on]].mean(axis=0), np.float32)
        if options.terms != "sample":
            return WordVectors(space.names, unit_vectors(matrix, mean))
        every, owner = all_terms(space, terms, options, matrix, cut)
        return WordVectors(tuple(space.names[i] for i in owner), unit_vectors(every, mean))

    def _trained_on(self, part: str) -> tuple[str, ...]:
        return tuple(store.read_json(self._path(part, "artifact.json"))["figures"].get("trained_on", ()))

    def _path(self, part: str, file: str) -> str:
        folder = part_of(self.folder, part)
        if folder is None:
            raise DataError(f"this run has no part {part!r}", where=self.folder, mend="psdevise run goes on with it")
        return store.join(folder, file)


def _pass(
    table: PictureTable, act: Embed, size: int, crops: int, on_progress: Callable[[int, int], None]
) -> Iterator[Features]:
    """All pictures of a table that can be read."""
    for start in range(0, table.rows, ROWS):
        stop = min(start + ROWS, table.rows)
        ids, labels, pixels = [], [], []
        for picture in table.read(start, stop):
            try:
                pixels.append(decode(picture.data, size)[None] if crops == 1 else crops_of(picture.data, size))
            except DataError:
                continue
            ids.append(picture.id)
            labels.append(picture.labels)
        if pixels:
            values = act(np.concatenate(pixels))
            yield Features(ids, values.reshape(len(ids), crops, -1).mean(axis=1), labels)
        on_progress(stop, table.rows)
