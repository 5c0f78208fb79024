"""The is-a graph of labels, and the ground-truth lists of hierarchical precision.

hp@k compares a top-k list with C_k(label) (Frome et al. 2013, supplement): start from the label; at radius
0, 1, 2, … in the graph taken as undirected, add all valid labels at that distance, whole shells at a time,
until |C| ≥ k.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from psdevise.errors import LabelError
from psdevise.labels.space import read_tsv

Walk = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # valid labels by growing radius, where each shell ends


class Hierarchy:
    """
    Args:
        edges: (child, parent) of is-a; a node may have several parents.

    Raises:
        LabelError: the edges hold a cycle.
    """

    def __init__(self, edges: Sequence[tuple[str, str]], where: str = "is-a graph") -> None:
        self.edges = tuple(sorted(set(edges)))
        self._where = where
        self._walked: dict[tuple[tuple[str, ...], int], dict[str, Walk]] = {}
        self._neighbours: dict[str, list[str]] = {}
        self.parents: dict[str, list[str]] = {}
        for child, parent in self.edges:
            self.parents.setdefault(child, []).append(parent)
            self._neighbours.setdefault(child, []).append(parent)
            self._neighbours.setdefault(parent, []).append(child)
        self._refuse_cycles()

    @staticmethod
    def read(path: str) -> Hierarchy:
        """From a TSV with the columns child, parent (and relation, which is not looked at)."""
        return Hierarchy([(r["child"], r["parent"]) for r in read_tsv(path, ("child", "parent"))], path)

    @property
    def hash(self) -> str:
        text = "\n".join(f"{c}\t{p}" for c, p in self.edges)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __contains__(self, node: str) -> bool:
        return node in self._neighbours

    def neighbours(self, node: str) -> list[str]:
        """Parents and children."""
        return self._neighbours.get(node, [])

    def shells(self, node: str) -> Iterator[list[str]]:
        """Nodes at undirected distance 0, 1, 2, … from `node`, a shell at a time: whoever has enough stops."""
        reached, shell = {node}, [node]
        while shell:
            yield shell
            further = dict.fromkeys(other for near in shell for other in self._neighbours.get(near, ()))
            shell = [other for other in further if other not in reached]
            reached.update(shell)

    def correct_lists(self, labels: Sequence[str], valid: Sequence[str], k: int) -> list[npt.NDArray[np.int64]]:
        """C_k of each label as sorted indices into `valid`.

        Raises:
            LabelError: a label is not in the graph, or k is not positive.
        """
        return self.correct_lists_of(labels, valid, (k,))[k]

    def correct_lists_of(
        self, labels: Sequence[str], valid: Sequence[str], ks: Sequence[int]
    ) -> dict[int, list[npt.NDArray[np.int64]]]:
        """The same for several k, k → lists: one walk finds them all, because each list begins the next longer one.
        Walks are kept for the next call with the same valid labels."""
        if any(k < 1 for k in ks):
            raise LabelError(f"k is {min(ks)}: it must be at least 1")
        if not ks:
            return {}
        walked = self._walked.setdefault((tuple(valid), max(ks)), {})
        index = _positions(valid)
        for label in labels:
            if label not in walked:
                walked[label] = self._walk(label, index, max(ks))
        lists: dict[int, list[npt.NDArray[np.int64]]] = {}
        for k in ks:
            # The first shell end that holds k labels; all that there are, if none does.
            lists[k] = [
                np.sort(found[: ends[min(int(np.searchsorted(ends, k)), len(ends) - 1)]])
                for found, ends in map(walked.__getitem__, labels)
            ]
        return lists

    def _walk(self, label: str, index: Mapping[str, list[int]], k: int) -> Walk:
        if label not in self._neighbours:
            raise LabelError(f"{label!r} is not in the is-a graph", where=self._where)
        found: list[int] = []
        ends: list[int] = []
        for shell in self.shells(label):
            found += [i for node in shell for i in index.get(node, ())]
            ends.append(len(found))
            if len(found) >= k:
                break
        return np.array(found, np.int64), np.array(ends, np.int64)

    def _refuse_cycles(self) -> None:
        waiting = {node: len(self.parents.get(node, ())) for node in self._neighbours}
        children: dict[str, list[str]] = {}
        for child, parent in self.edges:
            children.setdefault(parent, []).append(child)
        free = [node for node, n in waiting.items() if n == 0]
        removed = 0
        while free:
            node = free.pop()
            removed += 1
            for child in children.get(node, ()):
                waiting[child] -= 1
                if waiting[child] == 0:
                    free.append(child)
        if removed < len(waiting):
            rest = next(node for node, n in waiting.items() if n > 0)
            raise LabelError(f"a cycle through {rest!r}", where=self._where, mend="is-a must not lead back to itself")


def _positions(valid: Sequence[str]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for i, node in enumerate(valid):
        positions.setdefault(node, []).append(i)
    return positions
