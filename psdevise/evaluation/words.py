"""How good word vectors are by themselves: human judgements of similarity, analogies, coverage of label sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from psdevise import store
from psdevise.errors import DataError
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors, unit_rows

QUESTIONS_AT_ONCE = 256
Floats = npt.NDArray[np.float32]
Pair = tuple[str, str, float]
Question = tuple[str, str, str, str]


@dataclass(frozen=True)
class Similarity:
    """Spearman's ρ (ties share their mean rank) between cosine and human score over the `covered` of `total` pairs
    whose words both have vectors; None for fewer than three, or where one side's are all alike."""

    value: float | None
    covered: int
    total: int


@dataclass(frozen=True)
class Analogies:
    """Questions of one section that were answered right, of the `covered` whose words all have vectors."""

    section: str
    right: int
    covered: int
    total: int


@dataclass(frozen=True)
class Coverage:
    """A label, the term that found it (its first one that has a vector; its first one, if none has), whether that
    was its first term, and how often the corpus has the term (None where that is not known)."""

    label: str
    term: str
    found: bool
    first: bool
    count: int | None


@dataclass(frozen=True)
class Drift:
    """Means over terms: the share of the nearest terms that still are, and the cosine of a vector to what it was."""

    neighbours_kept: float
    cosine: float


def read_pairs(path: str) -> list[Pair]:
    """Two words and a score a line, by tabs, commas or spaces; lines that begin with # are comments.

    Raises:
        DataError: a line of another form (named), or no pair.
    """
    pairs = []
    for number, line in enumerate(store.read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.split(r"[\t,]" if re.search(r"[\t,]", line) else r" +", line.strip())
        try:
            pairs.append((parts[0].strip(), parts[1].strip(), float(parts[2])))
        except (IndexError, ValueError) as e:
            raise DataError(f"line {number} is not two words and a score: {line!r}", where=path) from e
    if not pairs:
        raise DataError("no pairs of words here", where=path)
    return pairs


def read_analogies(path: str) -> dict[str, list[Question]]:
    """Sections `: name` of questions `a b c d`: a is to b as c is to d.

    Raises:
        DataError: a line that is neither (named), or no question.
    """
    sections: dict[str, list[Question]] = {}
    section = "questions"
    for number, line in enumerate(store.read_text(path).splitlines(), 1):
        parts = line.split()
        if not parts or line.startswith("#"):
            continue
        if parts[0].startswith(":"):
            section = " ".join([parts[0][1:], *parts[1:]]).strip()
            continue
        if len(parts) != 4:
            raise DataError(f"line {number} is not four words: {line!r}", where=path)
        sections.setdefault(section, []).append((parts[0], parts[1], parts[2], parts[3]))
    if not sections:
        raise DataError("no questions here", where=path)
    return sections


def similarity(vectors: WordVectors, pairs: Sequence[Pair]) -> Similarity:
    human, cosine = [], []
    for a, b, score in pairs:
        one, other = find(vectors, a), find(vectors, b)
        if one is None or other is None:
            continue
        p, q = vectors.matrix[one], vectors.matrix[other]
        human.append(score)
        cosine.append(float(p @ q) / max(float(np.linalg.norm(p) * np.linalg.norm(q)), 1e-12))
    apart = len(human) > 2 and len(set(human)) > 1 and len(set(cosine)) > 1
    value = float(spearmanr(human, cosine).statistic) if apart else None
    return Similarity(value, len(human), len(pairs))


def analogies(
    vectors: WordVectors,
    sections: dict[str, list[Question]],
    restrict: int,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Analogies]:
    """d is the term nearest to b − a + c by cosine, a, b and c apart (3CosAdd, Mikolov et al. 2013).

    Args:
        restrict: questions and answers are among the first so many terms, which files have most frequent first.
    """
    matrix = vectors.matrix[:restrict]
    unit = unit_rows(matrix)
    found = []
    done, of = 0, sum(map(len, sections.values()))
    for name, questions in sections.items():
        known = [[find(vectors, word) for word in question] for question in questions]
        ids = np.array([row for row in known if all(i is not None and i < len(unit) for i in row)], np.int64)
        right = 0
        for part in np.array_split(ids, range(QUESTIONS_AT_ONCE, len(ids), QUESTIONS_AT_ONCE)) if len(ids) else ():
            a, b, c, d = part.T
            scores = (unit[b] - unit[a] + unit[c]) @ unit.T
            for given in (a, b, c):
                scores[np.arange(len(part)), given] = -np.inf
            right += int((scores.argmax(axis=1) == d).sum())
            on_progress(min(of, done := done + len(part)), of)
        found.append(Analogies(name, right, len(ids), len(questions)))
    return found


def drift(before: WordVectors, after: WordVectors, terms: Sequence[str], k: int = 10) -> Drift:
    """How far `terms` moved between two sets of vectors of the same terms; the k nearest are of all of them."""
    ids, k = np.array([before.index[term] for term in terms]), min(k, len(before.terms) - 1)
    nearest, own = [], []
    for vectors in (before, after):
        unit = unit_rows(vectors.matrix)
        own.append(unit[ids])
        parts = []
        for part in np.array_split(ids, range(QUESTIONS_AT_ONCE, len(ids), QUESTIONS_AT_ONCE)):
            cosines = unit[part] @ unit.T
            cosines[np.arange(len(part)), part] = -np.inf
            parts.append(np.argpartition(-cosines, k, axis=1)[:, :k])
        nearest.append(np.concatenate(parts))
    kept = [len(np.intersect1d(old, new)) / k for old, new in zip(*nearest, strict=True)]
    return Drift(float(np.mean(kept)), float((own[0] * own[1]).sum(axis=1).mean()))


def coverage(vectors: WordVectors, labels: LabelSpace, cut: Callable[[str], str] = str.lower) -> list[Coverage]:
    """Which labels a vocabulary names, label by label.

    Args:
        cut: a phrase as it would stand among the terms.
    """
    rows = []
    for label in labels.names:
        terms = [cut(term) for term in labels.terms[label]]
        term = next((t for t in terms if t in vectors), None)
        known = vectors.counts is not None
        count = (vectors.count(term) if term is not None else 0) if known else None
        rows.append(Coverage(label, term or (terms or [label])[0], term is not None, term == (terms or [""])[0], count))
    return rows


def find(vectors: WordVectors, word: str) -> int | None:
    """The row of a word as it stands, or in lower case."""
    return vectors.index.get(word, vectors.index.get(word.lower()))
