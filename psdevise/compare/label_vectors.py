"""What label vectors know: nearest labels, and arithmetic with them (Chollet 2016, Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from psdevise.labels.vectors import unit_rows
from psdevise.scores import Interval, bootstrap

Floats = npt.NDArray[np.float32]


class LabelVectors:
    """
    Args:
        names: of the rows of E [labels, k].
    """

    def __init__(self, names: Sequence[str], vectors: Floats) -> None:
        self.names = tuple(names)
        self._index = {name: i for i, name in enumerate(names)}
        self._vectors = np.asarray(vectors, np.float32)
        self._unit = unit_rows(self._vectors)

    def nearest(self, plus: Sequence[str], minus: Sequence[str] = (), top: int = 5) -> list[tuple[str, float]]:
        """The labels of highest cosine with Σ plus − Σ minus, these themselves left out."""
        point = sum(self._vectors[self._index[n]] for n in plus) - sum(self._vectors[self._index[n]] for n in minus)
        cosines = self._unit @ unit_rows(np.asarray(point, np.float32)[None])[0]
        cosines[[self._index[name] for name in (*plus, *minus)]] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:top]
        return [(self.names[i], float(cosines[i])) for i in best]

    def siblings(self, coarse: Mapping[str, Sequence[str]]) -> Interval:
        """How often the nearest other label among all groups' members is of the same group."""
        members = [name for labels in coarse.values() for name in labels]
        group = {name: number for number, labels in enumerate(coarse.values()) for name in labels}
        rows = self._unit[[self._index[name] for name in members]]
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -np.inf)
        best = cosines.argmax(axis=1)
        return bootstrap(np.array([float(group[members[b]] == group[m]) for b, m in zip(best, members, strict=True)]))

    def moved(self, coarse: Mapping[str, Sequence[str]], group_name: Mapping[str, str]) -> Interval:
        """x − its group + another group, over all members x and other groups: how often the nearest member, x left out,
        is of the other group. The interval is over members x.

        Args:
            group_name: group → the label that stands for it.
        """
        members = [name for labels in coarse.values() for name in labels]
        number = {name: i for i, labels in enumerate(coarse.values()) for name in labels}
        rows = [self._index[name] for name in members]
        groups = self._vectors[[self._index[group_name[name]] for name in coarse]]
        of = np.array([number[name] for name in members])
        per_member = []
        for i, row in enumerate(rows):
            points = self._vectors[row] - groups[of[i]] + np.delete(groups, of[i], axis=0)
            cosines = unit_rows(np.asarray(points, np.float32)) @ self._unit[rows].T
            cosines[:, i] = -np.inf
            per_member.append(float((of[cosines.argmax(axis=1)] == np.delete(np.arange(len(groups)), of[i])).mean()))
        return bootstrap(np.array(per_member))
