"""The vocabulary doctor: for every label, how it got its vector. Never a silent zero.

In this order: the label's exact phrase, its first listed term, another synonym, the mean of its words, the
mean of its neighbours in the is-a graph. What the policy does not allow stops the run, with the nearest
candidates named.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from psdevise.config import option
from psdevise.errors import LabelError
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors

How = Literal["exact phrase", "first term", "synonym", "mean of words", "graph neighbours"]


@dataclass(frozen=True)
class ResolveOptions:
    fallback: Literal["stop", "words", "neighbours"] = option(
        "words",
        "for a label without a term of its own in the vocabulary: stop the run, take the mean of its words,"
        " or else the mean of its neighbours in the is-a graph",
    )
    min_count: int = option(1, "occurrences from which on a term is trusted with a label", low=1)


@dataclass(frozen=True)
class Resolution:
    """`term` is what the vector was taken from, `count` its occurrences in the text (0 if unknown)."""

    label: str
    how: How
    term: str
    count: int


def resolve(
    space: LabelSpace,
    vectors: WordVectors,
    options: ResolveOptions,
    hierarchy: Hierarchy | None = None,
    cut: Callable[[str], str] = str.lower,
) -> tuple[npt.NDArray[np.float32], list[Resolution]]:
    """Vectors float32 [labels, dim] in the order of `space.names`, and how each was found.

    Args:
        cut: a phrase → how it stands among the terms (`Vocabulary.term_of`).

    Raises:
        LabelError: labels without a vector, each with its nearest candidates.
    """
    found: dict[str, tuple[npt.NDArray[np.float32], Resolution]] = {}
    for name in space.names:
        own = _own_term(name, space, vectors, options, cut)
        if own is None and options.fallback != "stop":
            own = _mean_of_words(name, space, vectors, cut)
        if own is not None:
            found[name] = own
    if options.fallback == "neighbours" and hierarchy is not None:
        for name in [n for n in space.names if n not in found]:
            if (near := _mean_of_neighbours(name, space, found, hierarchy)) is not None:
                found[name] = near
    missing = [name for name in space.names if name not in found]
    if missing:
        lines = "; ".join(
            f"{name!r} (near: {', '.join(candidates(name, vectors)) or 'nothing'})" for name in missing[:8]
        )
        raise LabelError(
            f"{len(missing)} labels have no vector: {lines}",
            where="labels",
            mend="add a synonym to labels.table, text that mentions them, or set labels.resolve.fallback",
        )
    return np.stack([found[n][0] for n in space.names]), [found[n][1] for n in space.names]


def summary(rows: list[Resolution]) -> dict[str, int]:
    """How many labels were found each way."""
    return dict(Counter(row.how for row in rows))


def candidates(name: str, vectors: WordVectors, k: int = 3) -> list[str]:
    """Terms that look like the label or hold one of its words."""
    words = set(name.lower().split())
    holding = [t for t in vectors.terms if " " in t and words.intersection(t.split())]
    alike = difflib.get_close_matches(name.lower(), vectors.terms[:50_000], n=k, cutoff=0.7)
    return list(dict.fromkeys([*alike, *holding]))[:k]


def _own_term(
    name: str, space: LabelSpace, vectors: WordVectors, options: ResolveOptions, cut: Callable[[str], str]
) -> tuple[npt.NDArray[np.float32], Resolution] | None:
    for position, phrase in enumerate(space.terms[name]):
        term = cut(phrase)
        trusted = term in vectors and (vectors.counts is None or vectors.count(term) >= options.min_count)
        if trusted:
            hows: tuple[How, ...] = ("exact phrase", "first term", "synonym")
            return vectors.vector(term), Resolution(name, hows[min(position, 2)], term, vectors.count(term))
    return None


def _mean_of_words(
    name: str, space: LabelSpace, vectors: WordVectors, cut: Callable[[str], str]
) -> tuple[npt.NDArray[np.float32], Resolution] | None:
    for phrase in space.terms[name]:
        known = [w for w in cut(phrase).split() if w in vectors]
        if known:
            mean = np.stack([vectors.vector(w) for w in known]).mean(axis=0).astype(np.float32)
            return mean, Resolution(name, "mean of words", " + ".join(known), min(vectors.count(w) for w in known))
    return None


def _mean_of_neighbours(
    name: str,
    space: LabelSpace,
    found: dict[str, tuple[npt.NDArray[np.float32], Resolution]],
    hierarchy: Hierarchy,
) -> tuple[npt.NDArray[np.float32], Resolution] | None:
    """The nearest shell of the graph that holds labels with vectors of their own."""
    by_node = {space.wnids[n]: n for n in found if n in space.wnids and found[n][1].how != "graph neighbours"}
    node = space.wnids.get(name)
    if node is None or node not in hierarchy:
        return None
    for shell in hierarchy.shells(node)[1:]:
        near = sorted(by_node[n] for n in shell if n in by_node)
        if near:
            mean = np.stack([found[n][0] for n in near]).mean(axis=0).astype(np.float32)
            return mean, Resolution(name, "graph neighbours", " + ".join(near), 0)
    return None
