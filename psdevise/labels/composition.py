"""What each label's vector is made of: rows of the word table and their weights, for training that moves the rows.

    vector of a term = Σ_i weight_i · table[row_i]

one row of weight 1 for a term that stands in the vocabulary, the mean of its words or of other labels for one that
does not (`psdevise.labels.resolve`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from psdevise import store
from psdevise.labels.resolve import Resolution, ResolveOptions, usable_terms
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Composition:
    """
    Attributes:
        rows: of the word table [m]; weights: float32 [m]; term: which term each of them is a part of [m].
        owner: the label of each term [terms], ascending, every label from 0 on at least once; its first term is what
            the label was resolved to.
    """

    rows: Ints
    weights: Floats
    term: Ints
    owner: Ints

    def write(self, path: str) -> None:
        store.write_bytes(path, save_safetensors(dict(vars(self))))

    @staticmethod
    def read(path: str) -> Composition:
        return Composition(**load_safetensors(store.read_bytes(path)))


def compose(
    labels: Sequence[str],
    space: LabelSpace,
    vectors: WordVectors,
    options: ResolveOptions,
    resolved: Sequence[Resolution],
    cut: Callable[[str], str] = str.lower,
) -> Composition:
    """The composition of `labels`, in this order, as they were `resolved` (`options.terms` first or sample; the mean
    of terms is one of unit vectors, and no such sum)."""
    found = {row.label: row for row in resolved}
    parts: list[Mapping[str, float]] = []
    owner = []
    for i, label in enumerate(labels):
        own = usable_terms(label, space, vectors, options, cut) if options.terms == "sample" else []
        terms: list[Mapping[str, float]] = [{term: 1.0} for term in own] or [_parts(label, found)]
        parts += terms
        owner += [i] * len(terms)
    flat = [(vectors.index[term], weight, i) for i, part in enumerate(parts) for term, weight in part.items()]
    rows, weights, term = zip(*flat, strict=True)
    return Composition(np.array(rows), np.array(weights, np.float32), np.array(term), np.array(owner))


def _parts(label: str, found: Mapping[str, Resolution]) -> dict[str, float]:
    """term → its weight in the label's vector."""
    row = found[label]
    if row.how not in ("mean of words", "graph neighbours"):
        return {row.term: 1.0}
    weights: dict[str, float] = {}
    for part in row.parts:
        for term, weight in (_parts(part, found) if row.how == "graph neighbours" else {part: 1.0}).items():
            weights[term] = weights.get(term, 0.0) + weight / len(row.parts)
    return weights
