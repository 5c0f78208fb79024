"""Huffman's code over a vocabulary: the output layer of hierarchical softmax (Morin and Bengio 2005, Mikolov 2013)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Paths:
    """All terms' paths from the root, one after the other: term t's is `[starts[t], starts[t] + lengths[t])`.

    Attributes:
        starts, lengths: int64 [terms].
        nodes: int32, inner nodes; the root is the highest, terms − 2, as in word2vec.
        bits: uint8, which way the path leaves each node.
    """

    starts: Integers
    lengths: Integers
    nodes: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint8]


def huffman(counts: Integers) -> Paths:
    """The tree in which frequent terms have short paths; counts int64 [terms], two terms at least."""
    terms = len(counts)
    heap = [(n, i) for i, n in enumerate(counts.tolist())]
    heapq.heapify(heap)
    parent = np.zeros(2 * terms - 1, np.int64)
    bit = np.zeros(2 * terms - 1, np.uint8)
    for node in range(terms, 2 * terms - 1):
        (n1, left), (n2, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        bit[right] = 1
        heapq.heappush(heap, (n1 + n2, node))
    return _from_the_root(parent, bit, terms)


def _from_the_root(parent: Integers, bit: npt.NDArray[np.uint8], terms: int) -> Paths:
    """All terms climb at once, a step a round; their paths are then turned round."""
    root = 2 * terms - 2
    at, climbing = np.arange(terms), np.arange(terms)
    lengths = np.zeros(terms, np.int64)
    steps: list[tuple[Integers, npt.NDArray[np.uint8], Integers]] = []
    while len(climbing):
        steps.append((climbing, bit[at], parent[at]))
        lengths[climbing] += 1
        at = parent[at]
        climbing, at = climbing[at != root], at[at != root]
    starts = np.cumsum(lengths) - lengths
    nodes = np.empty(lengths.sum(), np.int32)
    bits = np.empty(lengths.sum(), np.uint8)
    for climbed, (who, way, node) in enumerate(steps):
        place = starts[who] + lengths[who] - 1 - climbed
        nodes[place], bits[place] = node - terms, way
    return Paths(starts, lengths, nodes, bits)
