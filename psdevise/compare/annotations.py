"""Pictures with several labels, made from CIFAR-100's: coarse classes, WordNet ancestors, scenes of several pictures;
and labels that are missing or wrong (Chollet 2016, sections 3.3.2 and 3.3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.compare.frozen import Pictures
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace, columns_of, read_tsv

Rows = list[tuple[str, ...]]
TERMS = ("synsets_other.tsv", "synsets_21k.tsv")
THEMES = 5
IN_THEME = 0.8  # share of a scene's pictures that are of its theme


def ancestors(space: LabelSpace, hierarchy: Hierarchy) -> dict[str, tuple[str, ...]]:
    """Label → the nodes above it, near ones first; none for a label outside the graph."""
    found = {}
    for label in space.names:
        above: dict[str, None] = {}
        level = [space.wnids[label]] if label in space.wnids else []
        while level:
            level = [parent for node in level for parent in hierarchy.parents.get(node, ())]
            above |= dict.fromkeys(level)
        found[label] = tuple(above)
    return found


def further_labels(
    space: LabelSpace, hierarchy: Hierarchy, coarse: Mapping[str, Sequence[str]], terms: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Label → its coarse class, `fish (superclass)`, and its ancestors under their first terms.

    Args:
        coarse: coarse class → its labels.
        terms: node → its first term; a node without one, or whose term names another label, keeps its number.
    """
    names: dict[str, str] = {}
    taken = set(space.names)
    for node in dict.fromkeys(node for above in ancestors(space, hierarchy).values() for node in above):
        name = terms.get(node, node)
        names[node] = name if name not in taken else f"{name} [{node}]"
        taken.add(names[node])
    of_coarse = {label: f"{name} (superclass)" for name, labels in coarse.items() for label in labels}
    return {
        label: (*([of_coarse[label]] if label in of_coarse else []), *(names[node] for node in above))
        for label, above in ancestors(space, hierarchy).items()
    }


def first_terms(folder: str) -> dict[str, str]:
    """WordNet node → its first term, from those tables of `TERMS` that the folder has."""
    found: dict[str, str] = {}
    for name in TERMS:
        path = store.join(folder, name)
        if store.exists(path) and "terms" in columns_of(path):
            found |= {row["wnid"]: row["terms"].split(",")[0].strip() for row in read_tsv(path, ("wnid", "terms"))}
    return found


def annotate(labels: Sequence[str], further: Mapping[str, tuple[str, ...]]) -> Rows:
    return [(label, *further[label]) for label in labels]


def scenes(
    pictures: Pictures, coarse: Mapping[str, Sequence[str]], count: int, seed: int, themes_seed: int
) -> tuple[npt.NDArray[np.uint8], list[tuple[str, ...]]]:
    """`count` scenes of four pictures at half size in two rows, uint8 [count, size, size, 3], and their four labels.

    The coarse classes are dealt to five themes; a scene has one, and four fifths of its pictures are of it: so labels
    occur together beyond what is-a says. `themes_seed` is the same for training and test scenes.
    """
    order = np.random.default_rng([themes_seed, 61]).permutation(sorted(coarse))
    theme_of = {label: number % THEMES for number, name in enumerate(order) for label in coarse[str(name)]}
    themes = np.array([theme_of[label] for label in pictures.labels])
    rng = np.random.default_rng([seed, 67])
    size = pictures.pixels.shape[1]
    half = size // 2
    pixels = np.empty((count, 2 * half, 2 * half, 3), np.uint8)
    rows = []
    members = [np.flatnonzero(themes == theme) for theme in range(THEMES)]
    members = [rows_of if len(rows_of) else np.arange(pictures.rows) for rows_of in members]
    for scene in range(count):
        own = members[rng.integers(THEMES)]
        chosen = [
            int(rng.choice(own)) if rng.random() < IN_THEME else int(rng.integers(pictures.rows)) for _ in range(4)
        ]
        for tile, row in enumerate(chosen):
            small = pictures.pixels[row, : 2 * half, : 2 * half].reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
            top, left = half * (tile // 2), half * (tile % 2)
            pixels[scene, top : top + half, left : left + half] = small.round().astype(np.uint8)
        rows.append(tuple(pictures.labels[row] for row in chosen))
    return pixels, rows


def annotate_scenes(scenes: Sequence[tuple[str, ...]], further: Mapping[str, tuple[str, ...]]) -> Rows:
    return [tuple(dict.fromkeys(n for label in row for n in (label, *further[label]))) for row in scenes]


def removed(rows: Rows, share: float, seed: int) -> Rows:
    """Each label of each picture taken away with probability `share`; a picture may be left with none."""
    rng = np.random.default_rng([seed, 71])
    return [tuple(name for name, kept in zip(row, rng.random(len(row)) >= share, strict=True) if kept) for row in rows]


def added(rows: Rows, names: Sequence[str], share: float, seed: int) -> Rows:
    """Wrong labels, uniform over all that a picture does not have: on average `share` times as many as its own."""
    rng = np.random.default_rng([seed, 73])
    found = []
    for row in rows:
        own = set(row)
        wrong = [name for name in names if name not in own]
        number = min(int(rng.poisson(share * len(row))), len(wrong))
        found.append((*row, *(wrong[i] for i in rng.choice(len(wrong), number, replace=False))))
    return found
