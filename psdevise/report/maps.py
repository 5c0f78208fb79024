"""t-SNE maps of label vectors and of image embeddings (van der Maaten & Hinton, JMLR 2008)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from psdevise import store
from psdevise.errors import DataError
from psdevise.labels.vectors import unit_rows
from psdevise.report.chart import Mark, scatter

MOST_PICTURES = 1500
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Maps:
    labels: Markup
    pictures: Markup
    has_parents: bool


def draw(folder: str) -> Maps:
    """Both maps from map.safetensors and map.json of an evaluation's folder.

    Raises:
        StoreError: a file is missing.
        DataError: they do not fit together, or there are too few points.
    """
    from safetensors.numpy import load

    about = store.read_json(store.join(folder, "map.json"))
    tensors = load(store.read_bytes(store.join(folder, "map.safetensors")))
    vectors, embeddings = tensors["label_vectors"], tensors["image_embeddings"]
    if len(vectors) != len(about["labels"]) or len(embeddings) != len(about["image_labels"]):
        raise DataError("map.safetensors and map.json differ in length", where=folder)
    return Maps(
        _labels(about, vectors),
        _pictures(about, embeddings),
        any(about["parent"]),
    )


def tsne(vectors: Floats) -> npt.NDArray[np.float64]:
    """[n, E] → [n, 2] in the unit square; cosine distances, PCA start, always the same.

    The perplexity is an eighth of the points, from 3 to 30: about the size of a superclass for labels, and
    the usual 30 for pictures.

    Raises:
        DataError: fewer than 8 points, or all of them at one place.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n = len(vectors)
    if n < 8:
        raise DataError(f"a t-SNE map of {n} points says nothing")
    if not np.isfinite(vectors).all():
        raise DataError("a vector is not finite")
    unit = unit_rows(vectors)
    if np.ptp(unit, axis=0).max() < 1e-6:
        raise DataError("all vectors are the same")
    if min(unit.shape) > 50:
        unit = PCA(50, svd_solver="full").fit_transform(unit)
    method = TSNE(2, perplexity=min(30.0, max(3.0, n / 8)), init="pca", random_state=0)
    # One thread: on a machine whose cores are taken, OpenMP's threads wait for each other in a loop (measured:
    # 27 CPU seconds instead of 4 for 1,200 points), and the map would depend on their number.
    with threadpool_limits(1):
        found = method.fit_transform(unit)
    low, high = found.min(axis=0), found.max(axis=0)
    return np.asarray((found - low) / np.maximum(high - low, 1e-12), np.float64)


def _labels(about: dict[str, Any], vectors: Floats) -> Markup:
    at = tsne(vectors)
    families: dict[str, list[int]] = defaultdict(list)
    marks = []
    for i, (label, seen, parent) in enumerate(zip(about["labels"], about["seen"], about["parent"], strict=True)):
        if parent:
            families[parent].append(i)
        title = f"{label} ({'seen' if seen else 'unseen'}{', ' + parent if parent else ''})"
        marks.append(Mark(at[i, 0], at[i, 1], seen, title, label))
    links = []
    for members in families.values():
        if len(members) > 1:
            middle = at[members].mean(axis=0)
            links += [(*at[i].tolist(), *middle.tolist()) for i in members]
    unseen = sum(not s for s in about["seen"])
    describe = f"t-SNE map of {len(marks)} label vectors, {unseen} of them of unseen classes"
    return scatter(marks, describe, links, radius=4.0)


def _pictures(about: dict[str, Any], embeddings: Floats) -> Markup:
    """Each class is named once, at its picture nearest to the median of all."""
    n = len(embeddings)
    chosen = np.linspace(0, n - 1, min(n, MOST_PICTURES)).astype(np.int64)
    at = tsne(embeddings[chosen])
    labels = [about["image_labels"][i] for i in chosen]
    seen = [bool(about["image_seen"][i]) for i in chosen]
    members: dict[str, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        members[label].append(i)
    named = {}
    for label, inside in members.items():
        middle = np.median(at[inside], axis=0)
        named[inside[int(np.argmin(((at[inside] - middle) ** 2).sum(axis=1)))]] = label
    marks = [
        Mark(at[i, 0], at[i, 1], is_seen, f"{label} ({'seen' if is_seen else 'unseen'})", named.get(i, ""))
        for i, (label, is_seen) in enumerate(zip(labels, seen, strict=True))
    ]
    unseen = sum(not s for s in seen)
    describe = f"t-SNE map of the embeddings of {len(marks)} test pictures, {unseen} of them of unseen classes"
    return scatter(marks, describe)
