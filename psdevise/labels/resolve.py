"""The vocabulary doctor: for every label, how it got its vector. Never a silent zero.

In this order: the label's exact phrase, its first listed term, another synonym, the mean of its words, the
mean of its neighbours in the is-a graph. A term whose vector is all zeros counts as having none. What the
policy does not allow stops the run, with the nearest candidates named.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from psdevise.config import option
from psdevise.errors import LabelError
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors

PLUS = " + "  # the parts of a mean
How = Literal["exact phrase", "first term", "synonym", "mean of terms", "mean of words", "graph neighbours"]


@dataclass(frozen=True)
class ResolveOptions:
    fallback: Literal["stop", "words", "neighbours"] = option(
        "words",
        "for a label without a term of its own in the vocabulary: stop the run, take the mean of its words,"
        " or else the mean of its neighbours in the is-a graph",
    )
    terms: Literal["first", "mean", "sample"] = option(
        "first",
        "of a label with several terms: the first that has a vector; the mean of all; or sample: training draws one for"
        " each batch, and a label's score is its best term's",
    )
    min_count: int = option(1, "occurrences from which on a term is trusted with a label", low=1)


@dataclass(frozen=True)
class Resolution:
    """`term` is what the vector was taken from, `count` its occurrences in the text (0 if unknown)."""

    label: str
    how: How
    term: str
    count: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Of a mean: the terms, or the labels, that it is the mean of."""
        return tuple(self.term.split(PLUS))


Found = tuple[npt.NDArray[np.float32], Resolution]


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
    found: dict[str, Found] = {}
    for name in space.names:
        own = (_mean_of_terms if options.terms == "mean" else _own_term)(name, space, vectors, options, cut)
        if own is None and options.fallback != "stop":
            own = _mean_of_words(name, space, vectors, options, cut)
        if own is not None:
            found[name] = own
    if options.fallback == "neighbours" and hierarchy is not None:
        found |= _means_of_neighbours(space, found, hierarchy)
    missing = [name for name in space.names if name not in found]
    if missing:
        lines = "; ".join(_without_vector(name, space, vectors) for name in missing[:8])
        count = f"{len(missing)}" if len(missing) < len(space.names) else f"all {len(missing)}"
        raise LabelError(
            f"{count} labels have no vector: {lines}",
            where="labels",
            mend="add a synonym to labels.table, text that mentions them, or set labels.resolve.fallback",
        )
    return np.stack([found[n][0] for n in space.names]), [found[n][1] for n in space.names]


def all_terms(
    space: LabelSpace,
    vectors: WordVectors,
    options: ResolveOptions,
    resolved: npt.NDArray[np.float32],
    cut: Callable[[str], str] = str.lower,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Vectors float32 [terms, dim] of every label's terms, and each one's label as an index into `space.names`. A label
    without a term of its own has the one vector that it was `resolved` to [labels, dim]."""
    rows, owner = [], []
    for i, name in enumerate(space.names):
        terms = usable_terms(name, space, vectors, options, cut)
        rows += [vectors.vector(term) for term in terms] or [resolved[i]]
        owner += [i] * max(len(terms), 1)
    return np.stack(rows), np.array(owner, np.int64)


def summary(rows: list[Resolution]) -> dict[str, int]:
    """How many labels were found each way, in the order of the ways."""
    counts = {how: sum(row.how == how for row in rows) for how in get_args(How)}
    return {how: count for how, count in counts.items() if count}


def _without_vector(name: str, space: LabelSpace, vectors: WordVectors) -> str:
    """The label, its first term where that is another name, and what looks like this."""
    term = space.terms[name][0]
    known_as = repr(name) if term == name else f"{name!r}, {term!r}"
    return f"{known_as} (near: {', '.join(candidates(term, vectors)) or 'nothing'})"


def candidates(name: str, vectors: WordVectors, k: int = 3) -> list[str]:
    """Terms that look like the label or hold one of its words."""
    words = set(name.lower().split())
    holding = [t for t in vectors.terms if " " in t and words.intersection(t.split())]
    alike = difflib.get_close_matches(name.lower(), vectors.terms[:50_000], n=k, cutoff=0.7)
    return [t for t in dict.fromkeys([*alike, *holding]) if vectors.vector(t).any()][:k]


def _usable(term: str, vectors: WordVectors, options: ResolveOptions) -> bool:
    """A term with a vector, seen often enough, that points somewhere."""
    if term not in vectors or (vectors.counts is not None and vectors.count(term) < options.min_count):
        return False
    return bool(vectors.vector(term).any())


def _own_term(
    name: str, space: LabelSpace, vectors: WordVectors, options: ResolveOptions, cut: Callable[[str], str]
) -> Found | None:
    listed = [phrase for phrase in space.terms[name] if phrase != name]
    for phrase in space.terms[name]:
        term = cut(phrase)
        if _usable(term, vectors, options):
            how: How = "exact phrase" if phrase == name else "first term" if phrase == listed[0] else "synonym"
            return vectors.vector(term), Resolution(name, how, term, vectors.count(term))
    return None


def usable_terms(
    name: str, space: LabelSpace, vectors: WordVectors, options: ResolveOptions, cut: Callable[[str], str]
) -> list[str]:
    """A label's terms that may give it a vector, in the order of its list."""
    terms = dict.fromkeys(cut(phrase) for phrase in space.terms[name])
    return [term for term in terms if _usable(term, vectors, options)]


def _mean_of_terms(
    name: str, space: LabelSpace, vectors: WordVectors, options: ResolveOptions, cut: Callable[[str], str]
) -> Found | None:
    """The mean of the unit vectors of all its terms; of a single one, that as it is."""
    terms = usable_terms(name, space, vectors, options, cut)
    if len(terms) < 2:
        return _own_term(name, space, vectors, options, cut)
    rows = np.stack([vectors.vector(term) for term in terms])
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0).astype(np.float32)
    if not mean.any():
        return None
    return mean, Resolution(name, "mean of terms", PLUS.join(terms), min(map(vectors.count, terms)))


def _mean_of_words(
    name: str, space: LabelSpace, vectors: WordVectors, options: ResolveOptions, cut: Callable[[str], str]
) -> Found | None:
    for phrase in space.terms[name]:
        known = [w for w in cut(phrase).split() if _usable(w, vectors, options)]
        if known:
            mean = np.stack([vectors.vector(w) for w in known]).mean(axis=0).astype(np.float32)
            if mean.any():
                return mean, Resolution(name, "mean of words", PLUS.join(known), min(vectors.count(w) for w in known))
    return None


def _means_of_neighbours(space: LabelSpace, found: Mapping[str, Found], hierarchy: Hierarchy) -> dict[str, Found]:
    """For each label not found, the mean of the nearest shell of the graph that holds labels that are."""
    by_node: dict[str, list[str]] = {}
    for name in found:
        if name in space.wnids:
            by_node.setdefault(space.wnids[name], []).append(name)
    means: dict[str, Found] = {}
    for name in space.names:
        node = space.wnids.get(name)
        if name in found or node is None or node not in hierarchy:
            continue
        for shell in hierarchy.shells(node):
            near = sorted(other for at in shell for other in by_node.get(at, ()))
            if not near:
                continue
            mean = np.stack([found[n][0] for n in near]).mean(axis=0).astype(np.float32)
            if mean.any():
                means[name] = mean, Resolution(name, "graph neighbours", PLUS.join(near), 0)
                break
    return means
