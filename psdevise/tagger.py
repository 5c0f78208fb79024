"""A finished run as a tagger: names pictures with any labels or terms, without Ray.

tagger = psdevise.load("runs/quickstart")
tagger.predict(["a.jpg"], labels=["okapi", "pickup truck"], k=2)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from psdevise import config, store
from psdevise.data.pictures import decode
from psdevise.data.vocabulary import Vocabulary
from psdevise.errors import DataError, LabelError
from psdevise.index.by_label import LabelIndex
from psdevise.labels import vectors as word_vectors
from psdevise.labels.resolve import ResolveOptions, resolve
from psdevise.labels.space import LabelSpace
from psdevise.models.core import CoreOptions
from psdevise.phases.joint import load_devise, unit_vectors
from psdevise.systems.embedding import EmbeddingSystem

Image = str | bytes | npt.NDArray[np.uint8]


class Naming(NamedTuple):
    """A label and its cosine with the picture, from −1 to 1: of a label with several terms its best one's."""

    label: str
    score: float


class Tagger:
    """
    Args:
        labels: the run's classes; one stands there once for each of its terms, where training drew one of them
            (`labels.resolve.terms: sample`).

    Attributes:
        labels: the classes of the run's data set, seen and unseen.
        terms: every term that has a vector.
    """

    def __init__(
        self,
        system: EmbeddingSystem,
        core: CoreOptions,
        labels: word_vectors.WordVectors,
        terms: word_vectors.WordVectors,
        resolve_options: ResolveOptions,
        tokenizer_of: Vocabulary | None,
    ) -> None:
        self._system, self._core = system, core
        self._labels, self._terms = labels, terms
        self._resolve = resolve_options
        self._tokenizer_of = tokenizer_of
        self._cut = tokenizer_of.term_of if tokenizer_of is not None else terms.term_of
        self._own = by_label(labels)
        self._index = LabelIndex(self._own)
        self.labels, self.terms = tuple(self._own), terms.terms

    def predict(self, images: Iterable[Image], labels: Sequence[str] | None = None, k: int = 5) -> list[list[Naming]]:
        """The k labels nearest to each picture, best first.

        Args:
            images: paths, encoded bytes, or uint8 arrays [H, W, 3].
            labels: any terms; the run's own classes by default.

        Raises:
            LabelError: a label has no vector; its nearest candidates are named.
            DataError: a picture that cannot be read.
        """
        index = self._index if labels is None else self.index_of(labels)
        return self.nearest(self.embed(images), index, k)

    def embed(self, images: Iterable[Image]) -> npt.NDArray[np.float32]:
        """Unit vectors in the space of the words, float32 [n, dim]."""
        pixels = [self._pixels(image) for image in images]
        return self.embed_pixels(np.stack(pixels)) if pixels else np.zeros((0, self._terms.dim), np.float32)

    def embed_pixels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The same for pictures uint8 [n, size, size, 3] that were decoded before."""
        return self._system.embed(pixels)

    def index_of(self, labels: Sequence[str]) -> LabelIndex:
        """An index over any list of terms, made once for many pictures."""
        if len(set(labels)) < len(labels):
            twice = next(name for name in labels if list(labels).count(name) > 1)
            raise LabelError(f"{twice!r} stands in the list twice")
        return LabelIndex(self._vectors_of(labels))

    def nearest(self, embedded: npt.NDArray[np.float32], index: LabelIndex, k: int) -> list[list[Naming]]:
        return [[Naming(*pair) for pair in row] for row in index.nearest(embedded, k)]

    def neighbours(self, term: str, k: int = 10) -> list[Naming]:
        """The terms nearest to a term or class, itself left out."""
        rows = self._terms.neighbours(self._vectors_of([term])[term][0], k + 1)
        cut = self._cut(term)
        return [Naming(name, score) for name, score in rows if name != cut][:k]

    def with_vectors(self, vectors: word_vectors.WordVectors) -> Tagger:
        """The same tagger with further vectors of the same dimension, which come before its own terms.

        Raises:
            LabelError: another dimension.
        """
        if vectors.dim != self._terms.dim:
            raise LabelError(f"the vectors have {vectors.dim} dimensions, this model {self._terms.dim}")
        old = [i for i, term in enumerate(self._terms.terms) if term not in vectors]
        names = (*vectors.terms, *(self._terms.terms[i] for i in old))
        matrix = np.concatenate([unit_vectors(vectors.matrix, None), self._terms.matrix[old]])
        both = word_vectors.WordVectors(names, matrix)
        kept = [i for i, name in enumerate(self._labels.terms) if name not in vectors]
        labels = word_vectors.WordVectors(
            tuple(self._labels.terms[i] for i in kept) or self._labels.terms,
            self._labels.matrix[kept] if kept else self._labels.matrix,
        )
        return Tagger(self._system, self._core, labels, both, self._resolve, self._tokenizer_of)

    @property
    def size(self) -> int:
        """Side of the pictures that the core takes, in pixels."""
        return self._core.size

    def _vectors_of(self, labels: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """label → its unit vectors [terms, dim]: a class's own, of another label its term's."""
        unknown = [name for name in labels if name not in self._own]
        found = self._own
        if unknown:
            matrix, _ = resolve(LabelSpace.of(unknown), self._terms, self._resolve, None, self._cut)
            found = found | dict(zip(unknown, unit_vectors(matrix, None)[:, None], strict=True))
        return {name: found[name] for name in labels}

    def _pixels(self, image: Image) -> npt.NDArray[np.uint8]:
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(f"expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
            import io

            from PIL import Image as Pillow

            file = io.BytesIO()
            Pillow.fromarray(image).save(file, "PNG")
            return decode(file.getvalue(), self.size)
        try:
            return decode(store.read_bytes(image) if isinstance(image, str) else image, self.size)
        except DataError as e:
            raise DataError(e.what, where=image if isinstance(image, str) else "image") from e


def by_label(vectors: word_vectors.WordVectors) -> dict[str, npt.NDArray[np.float32]]:
    """label → its rows [terms, dim], in their order."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(vectors.terms):
        rows.setdefault(name, []).append(i)
    return {name: vectors.matrix[own] for name, own in rows.items()}


def load(run: str) -> Tagger:
    """The tagger of a finished run.

    Raises:
        DataError: the folder holds no finished run, or one without pictures.
    """
    about = store.join(run, "run.json")
    pointer = store.join(run, "tagger.json")
    if not store.exists(about) or not store.exists(pointer):
        raise DataError("no finished run here", where=run, mend="give the folder that `psdevise run` printed")
    resolved, paths = store.read_json(about)["config"], store.read_json(pointer)
    if "index" not in paths:
        mend = "psdevise neighbors and psdevise evaluate words read it"
        raise DataError("this run has word vectors alone, and names no pictures", where=run, mend=mend)
    core = config.build(CoreOptions, resolved["visual"]["core"])
    labels = word_vectors.load(store.join(run, paths["index"], "labels.parquet"), repeats=True)
    terms = word_vectors.load(store.join(run, paths["index"], "terms.parquet"))
    module = load_devise(store.join(run, paths["joint"], "model.safetensors"), core)
    vocabulary = None
    if paths.get("vocabulary"):
        vocabulary = Vocabulary.load(store.join(run, paths["vocabulary"], "vocabulary.parquet"))
    options = config.build(ResolveOptions, resolved["labels"]["resolve"])
    return Tagger(EmbeddingSystem("devise", module, core, by_label(labels)), core, labels, terms, options, vocabulary)
