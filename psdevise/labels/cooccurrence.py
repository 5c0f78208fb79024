"""Label vectors from which labels occur together on a picture (Chollet, "Information-theoretical label embeddings for
large-scale image classification", 2016, section 2): pointwise mutual information, factorised.

    PMI(a, b) = log P(a, b) / (P(a) P(b)),   PMI ≈ E Eᵀ,   E = U_k Σ_k^(1/2)

The paper takes PMI for positive definite and says nothing of pairs that never occur together. On real labels it has
negative eigenvalues and most pairs never do. Here log 0 is replaced by one of three rules, negative eigenvalues are
taken for 0, and what is lost is told (`Factors.dropped`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from psdevise.errors import LabelError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rule = Literal["ppmi", "zero", "shift"]


@dataclass(frozen=True)
class Counts:
    """How often labels occur.

    Attributes:
        pictures: n.
        each: float64 [labels], pictures that have the label; together: [labels, labels], that have both.
    """

    pictures: int
    each: Floats
    together: Floats

    def of(self, labels: npt.NDArray[np.int64]) -> Counts:
        """Those of some labels."""
        return Counts(self.pictures, self.each[labels], self.together[np.ix_(labels, labels)])


def count(relevant: Bools) -> Counts:
    """bool [pictures, labels], which picture has which label."""
    ones = relevant.astype(np.float32)  # exact up to 16 million pictures
    return Counts(len(ones), relevant.sum(axis=0).astype(np.float64), (ones.T @ ones).astype(np.float64))


def pmi(counts: Counts, rule: Rule = "ppmi", shift: float = 1.0) -> Floats:
    """PMI [labels, labels], the diagonal kept: −log P(a) there.

    Args:
        rule: ppmi: max(PMI, 0); zero: PMI, but 0 for a pair that never occurs together; shift: max(PMI − log s, 0).
        shift: s.

    Labels that never occur have 0 with all.

    Raises:
        LabelError: s is not positive.
    """
    return association(counts.together, counts.each, counts.each, counts.pictures, rule, shift)


def association(
    together: Floats, rows: Floats, columns: Floats, pictures: int, rule: Rule = "ppmi", shift: float = 1.0
) -> Floats:
    """PMI of new labels [rows] with known ones [columns]: `place` takes its rows."""
    if not shift > 0:
        raise LabelError(f"the shift is {shift}", where="PMI", mend="above 0; 1 is max(PMI, 0)")
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(together * pictures / np.outer(rows, columns))
    found = np.where(together > 0, found, 0.0 if rule == "zero" else -np.inf)
    if rule == "zero":
        return found
    return np.maximum(found - (np.log(shift) if rule == "shift" else 0.0), 0.0)


@dataclass(frozen=True)
class Factors:
    """
    Attributes:
        vectors: E = U_k Σ_k^(1/2), float64 [labels, k]. Columns of eigenvalues that are not positive are 0.
        values: the k highest eigenvalues, negative ones as 0; basis: U_k [labels, k].
        negative: how many eigenvalues of the whole matrix are below 0.
        dropped: Σ|λ| of the negative ones over Σ|λ| of all; cut: the same of positive ones beyond the k-th.
    """

    vectors: Floats
    values: Floats
    basis: Floats
    negative: int
    dropped: float
    cut: float

    def place(self, rows: Floats) -> Floats:
        """Vectors of new labels from their PMI with the known ones: x = Σ_k^(−1/2) U_kᵀ p, [new, labels] → [new, k].

        A known label's own row comes out where its vector is, if nothing negative was dropped along it.
        """
        useful = self.values > self.values.max(initial=0.0) * 1e-10
        scale = np.where(useful, 1 / np.sqrt(np.where(useful, self.values, 1.0)), 0.0)
        return np.asarray(rows @ self.basis * scale, np.float64)


def factorise(matrix: Floats, k: int) -> Factors:
    """The best approximation of a symmetric matrix by E Eᵀ of rank k (Eckart and Young, for what is positive of it).

    Raises:
        LabelError: not symmetric, or k not from 1 to the number of labels.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T, atol=1e-8):
        raise LabelError("the matrix is not symmetric", where="factorisation of label co-occurrences")
    if not 1 <= k <= len(matrix):
        raise LabelError(f"k is {k}", where="factorisation of label co-occurrences", mend=f"from 1 to {len(matrix)}")
    values, basis = eigh(np.asarray(matrix, np.float64))
    values, basis = values[::-1], basis[:, ::-1]
    noise = 1e-10 * float(np.abs(values).max(initial=0.0))
    positive = np.where(values > noise, values, 0.0)
    mass = max(float(np.abs(values).sum()), 1e-300)
    return Factors(
        vectors=basis[:, :k] * np.sqrt(positive[:k]),
        values=positive[:k],
        basis=basis[:, :k],
        negative=int((values < -noise).sum()),
        dropped=float(-values[values < 0].sum()) / mass,
        cut=float(positive[k:].sum()) / mass,
    )
