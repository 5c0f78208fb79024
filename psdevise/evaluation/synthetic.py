"""Systems whose pictures are drawn near their labels' vectors: the ImageNet protocol without a picture of ImageNet.

Terms' vectors follow the hierarchy: a synset's is the mean of its parents' and a step of its own, and a term's the mean
of its synsets'; the labels then get theirs by the same rules as in a run (`psdevise.labels.resolve`), so that synsets
with one first term are tie groups here as well. A picture is

    x = c · t + √(1 − c²) · z,   z uniform on the sphere,

with the cosine c smaller for unseen classes. The figures say nothing of any model; they show that the protocol runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.data import features
from psdevise.data.features import Features
from psdevise.evaluation.embedded import Embedded
from psdevise.evaluation.imagenet import SPLIT, SUPERVISED, UNSEEN, Protocol
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.hops import Lists
from psdevise.labels.resolve import ResolveOptions, resolve
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors, unit_rows

Vectors = npt.NDArray[np.float32]

SEEN_COSINE, UNSEEN_COSINE = 0.15, 0.09
KEPT = 0.6  # share of a synset's vector that is its parents'
ROWS = 2_000  # pictures drawn at a time


class Drawn(NamedTuple):
    """A system to draw: its dimension, whether its labels' vectors are words' or random directions."""

    name: str
    variant: str
    dim: int
    random: bool = False


SYSTEMS = (
    Drawn("softmax", "default", 1000),
    Drawn("devise", "500-D", 500),
    Drawn("devise", "1000-D", 1000),
    Drawn("random", "500-D", 500, random=True),
    Drawn("random", "1000-D", 1000, random=True),
)


def draw(
    folder: str,
    protocol: Protocol,
    space: LabelSpace,
    supervised: int,
    unseen: int,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Embedded]:
    """Writes the paper's systems as files, those that are there already left as they are.

    Args:
        space: the terms of every label.
        supervised, unseen: pictures of the seen classes, and of each unseen class.
    """
    lists, rng_seed = protocol.lists, protocol.seed
    parts = {SUPERVISED: [lists.seen[i % len(lists.seen)] for i in range(supervised)]}
    parts[UNSEEN] = [label for label in lists.unseen for _ in range(unseen)]
    assert protocol.split is not None
    apart = {SPLIT: [label for label in protocol.split.unseen for _ in range(50)]}
    jobs = [(drawn, drawn.variant, parts, lists.seen) for drawn in SYSTEMS]
    jobs.append((SYSTEMS[1], f"500-D, {len(protocol.split.seen)} classes", apart, protocol.split.seen))
    terms = [space.terms[name] for name in space.names]
    key = store.key_of([protocol.seed, supervised, unseen, space.names, terms, lists.seen, lists.edges])
    found = []
    for number, (drawn, variant, own, trained_on) in enumerate(jobs):
        on_progress(number, len(jobs))
        place = store.join(folder, f"{drawn.name}-{variant}-{key}".replace(", ", "-").replace(" ", "-"))
        if not store.exists(store.join(place, "system.json")):
            system = Embedded(place, drawn.name, variant, trained_on)
            vectors = _labels(drawn, protocol, space)
            for part, true in own.items():
                if part == UNSEEN and drawn.random:
                    continue  # as in the paper, whose Tables 2 and 3 have none
                rng = np.random.default_rng([rng_seed, number, len(true)])
                _write(store.join(place, f"{part}.parquet"), drawn, vectors, true, lists, rng)
            axes = WordVectors(lists.seen, np.eye(len(lists.seen), dtype=np.float32))
            system.write(axes if drawn.name == "softmax" else vectors)
        found.append(Embedded.open(place))
    on_progress(len(jobs), len(jobs))
    return found


def _labels(drawn: Drawn, protocol: Protocol, space: LabelSpace) -> WordVectors:
    """Unit vectors of every label."""
    rng = np.random.default_rng([protocol.seed, 31, drawn.dim])
    if drawn.random:
        return WordVectors(space.names, unit_rows(rng.standard_normal((len(space.names), drawn.dim), dtype=np.float32)))
    hierarchy = Hierarchy([(child, parent) for child, parent, _ in protocol.lists.edges])
    nodes = _down_the_graph(hierarchy, drawn.dim, rng)
    sums: dict[str, Vectors] = {}
    for name in space.names:
        term = space.terms[name][0].lower()
        sums[term] = sums[term] + nodes[name] if term in sums else nodes[name]
    terms = WordVectors(tuple(sums), np.stack(list(sums.values())))
    return WordVectors(space.names, unit_rows(resolve(space, terms, ResolveOptions())[0]))


def _down_the_graph(hierarchy: Hierarchy, dim: int, rng: np.random.Generator) -> dict[str, Vectors]:
    """A unit vector for every node, parents before children."""
    found: dict[str, Vectors] = {}
    waiting = list(dict.fromkeys(node for edge in hierarchy.edges for node in edge))
    while waiting:
        ready = [n for n in waiting if all(p in found for p in hierarchy.parents.get(n, ()))]
        steps = unit_rows(rng.standard_normal((len(ready), dim), dtype=np.float32))
        for node, step in zip(ready, steps, strict=True):
            parents = hierarchy.parents.get(node, ())
            above = sum((found[p] for p in parents), np.zeros(dim, np.float32))
            found[node] = unit_rows(
                np.float32(KEPT) * unit_rows(above[None]) + np.float32((1 - KEPT**2) ** 0.5) * step
            )[0]
        done = set(ready)
        waiting = [n for n in waiting if n not in done]
    return found


def _write(
    path: str, drawn: Drawn, vectors: WordVectors, true: Sequence[str], lists: Lists, rng: np.random.Generator
) -> None:
    seen = set(lists.seen)
    axes = vectors.matrix[[vectors.index[label] for label in lists.seen]].T

    def parts() -> Iterator[Features]:
        for start in range(0, len(true), ROWS):
            labels = true[start : start + ROWS]
            own = vectors.matrix[[vectors.index[label] for label in labels]]
            cosine = np.array([SEEN_COSINE if label in seen else UNSEEN_COSINE for label in labels], np.float32)[
                :, None
            ]
            noise = unit_rows(rng.standard_normal(own.shape, dtype=np.float32))
            values = (cosine * own + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
            if drawn.name == "softmax":
                values = values @ axes
            yield Features([f"{start + i}" for i in range(len(labels))], values, [(label,) for label in labels])

    features.write(path, parts(), len(lists.seen) if drawn.name == "softmax" else drawn.dim)
