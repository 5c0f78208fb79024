"""Vectors of any number that lie to each other as trained word vectors do: independent Gaussians say nothing about
search, since all of them are equally far from each other.

A tree of meanings: every node is its parent's vector and a step of its own,

    x_child = x_parent + s · z,    z ~ N(0, diag(λ)),  λ_i ∝ (1 + i / ROLL)^−DECAY

with eight times as many nodes on each level as on the one above, the last level the words. Parents have children by a
log-normal law, words stand at log-normal distances from theirs, and the unequal λ leave about 45 effective dimensions.
The shares of the variance were fitted to 69,841 vectors of 200 dimensions that the shipped options trained on 17
million words. Median cosine to the 1st, 20th, 1,000th, 5,000th and 20,000th nearest other word:

    trained  .763  .688  .553  .443  .305
    drawn    .767  .709  .552  .448  .349
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

BRANCHING = 8
SHARES = (0.39, 0.03, 0.04, 0.09, 0.19)  # of the variance, from the words upward; what is left is the highest levels'
COMMON = 0.13  # of the variance, what all words share
ROLL, DECAY = 13.0, 1.3
SPREAD = 0.4  # σ of the logarithm of a word's distance from its parent
SKEW = 0.7  # σ of the logarithm of a parent's share of the children
RANKS = (1, 20, 1000)
SPAN = 0.05  # share of a picture's rest that lies among the labels


def drawn(n: int, dim: int, seed: int) -> Vectors:
    """Unit vectors float32 [n, dim]."""
    rng = np.random.default_rng([seed, 19])
    scale = (1 + np.arange(dim) / ROLL) ** (-DECAY / 2)
    scale = (scale / np.linalg.norm(scale)).astype(np.float32)
    sizes = [n]
    while sizes[-1] >= BRANCHING:
        sizes.append(-(-sizes[-1] // BRANCHING))
    shares = [*SHARES[: len(sizes)], *[0.0] * (len(sizes) - len(SHARES))]
    above = max(len(sizes) - len(SHARES), 1)
    shares[len(SHARES) :] = [(1 - COMMON - sum(SHARES)) / above] * above
    nodes: Vectors = (rng.standard_normal((1, dim), dtype=np.float32) * scale * COMMON**0.5).astype(np.float32)
    for level in reversed(range(len(sizes))):
        weights = np.exp(SKEW * rng.standard_normal(len(nodes)))
        parents = rng.choice(len(nodes), sizes[level], p=weights / weights.sum())
        step = rng.standard_normal((sizes[level], dim), dtype=np.float32)
        step *= scale * np.float32(shares[level] ** 0.5)
        if level == 0:
            step *= np.exp(SPREAD * rng.standard_normal((n, 1), dtype=np.float32))
        step += nodes[parents]
        nodes = step
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    return nodes


def profile(vectors: Vectors, seed: int, ranks: Sequence[int] = RANKS, sample: int = 200) -> dict[int, float]:
    """rank → median over a sample of words of the cosine to the nearest other word but so many."""
    chosen = np.random.default_rng(seed).choice(len(vectors), min(sample, len(vectors)), replace=False)
    cosines = vectors[chosen] @ vectors.T
    cosines[np.arange(len(chosen)), chosen] = -np.inf
    ranks = [rank for rank in ranks if rank < len(vectors)]
    ordered = np.partition(-cosines, [rank - 1 for rank in ranks], axis=1)
    return {rank: float(np.median(-ordered[:, rank - 1])) for rank in ranks}


def asked(vectors: Vectors, count: int, cosine: float, seed: int) -> Vectors:
    """Queries as pictures of random labels: unit vectors float32 [count, dim] at `cosine` to theirs,

        q = c t + √(1 − c²) (√SPAN m + √(1 − SPAN) z)

    m a mixture of all labels, in whose span a trained projection's outputs lie, and z uniform on the sphere. With the
    same words and .27 the nearest and the 20th word have mean cosines of .33 and .29 to these, .35 and .28 to pictures
    of CIFAR-100 that a trained run embedded.
    """
    rng = np.random.default_rng([seed, 23])
    labels = vectors[rng.integers(0, len(vectors), count)]
    some = vectors[rng.choice(len(vectors), min(2000, len(vectors)), replace=False)]
    mixed = _apart(rng.standard_normal((count, len(some)), dtype=np.float32) @ some, labels)
    uniform = _apart(rng.standard_normal(labels.shape, dtype=np.float32), labels)
    noise = _apart(np.float32(SPAN**0.5) * mixed + np.float32((1 - SPAN) ** 0.5) * uniform, labels)
    return np.float32(cosine) * labels + np.float32((1 - cosine**2) ** 0.5) * noise


def _apart(rows: Vectors, labels: Vectors) -> Vectors:
    """What of each row is orthogonal to its label, as a unit vector."""
    rows = rows - (rows * labels).sum(axis=1, keepdims=True) * labels
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
