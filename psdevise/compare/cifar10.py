"""`psdevise compare cifar10`: Socher et al. 2013's protocol on CIFAR-10, all 45 pairs of unseen classes.

Features (Coates and Ng 2011), their dictionary and their standardisation are fitted once on all training pictures
without labels, as in the paper. They enter map and softmax through inner products alone (`systems.dual`), which are
computed once for all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.compare.cells import Arrays, Cells
from psdevise.compare.cifar100 import Words
from psdevise.compare.frozen import OnProgress, Pictures, read_pictures
from psdevise.errors import ConfigError
from psdevise.labels.resolve import ResolveOptions, resolve
from psdevise.labels.space import LabelSpace
from psdevise.models.single_layer import SingleLayerOptions, Standard, fit
from psdevise.phases.joint import random_vectors, unit_vectors
from psdevise.systems import dual
from psdevise.systems.novelty import LocalOutlierProbability, fit_gaussians, squared_distances
from psdevise.systems.socher import nearest

Floats = npt.NDArray[np.float32]
EXTENTS = tuple(range(1, 14))  # λ of LoOP
QUANTILES = 201  # kept points of the threshold's curve
MAPPED = 25  # mapped test pictures of each class that a cell keeps, for the projection map
SHOWN = (
    ("cat", "truck"),
    ("deer", "ship"),
    ("automobile", "deer"),
    ("airplane", "automobile"),
    ("cat", "dog"),
)


@dataclass(frozen=True)
class Options:
    """
    Args:
        data: folder that holds cifar10/.
        train_per_class: the first so many training pictures of each class (the file has 1,500; the paper used 5,000).
        test_per_class: the same of the test pictures.
        pairs: how many of the 45, the five of the paper's figure first.
        draws: of random vectors in the words' place.
        penalty: λ of the map; softmax_penalty: λ of the softmax. Units as in `systems.dual`.
    """

    data: str
    out: str
    pairs: int = 45
    draws: int = 5
    train_per_class: int = 1500
    test_per_class: int = 1000
    layer: SingleLayerOptions = SingleLayerOptions()
    penalty: float = 0.3
    softmax_penalty: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= 45:
            raise ConfigError(f"{self.pairs} pairs", where="compare cifar10", mend="from 1 to 45")


@dataclass(frozen=True)
class Kernels:
    """Inner products of standardised features: of training pictures [n, n], and of test with training ones [m, n]."""

    train: Floats
    inverse: Floats  # of the training pictures' (`dual.inverse`)
    test: Floats
    train_labels: npt.NDArray[np.int64]
    test_labels: npt.NDArray[np.int64]


def pairs(names: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The paper's five first, then the others in the order of the names."""
    rest = [pair for pair in combinations(names, 2) if not any(set(pair) == set(shown) for shown in SHOWN)]
    return [*SHOWN, *rest][:count]


def run(options: Options, words: Words, on_progress: OnProgress) -> dict[str, Any]:
    """Fills in the missing cells; `tables10.markdown` shows what comes back.

    Raises:
        ConfigError: the folder holds another comparison.
        DataError, LabelError: the data cannot be used.
    """
    space = LabelSpace.read(store.join(options.data, "cifar10", "wordnet.tsv"))
    raw = resolve(space, words.vectors, ResolveOptions(), None, words.cut)[0]
    cells = Cells(options.out, _plan(options, raw))
    wanted = pairs(space.names, options.pairs)
    todo = [pair for pair in wanted if not cells.has("-".join(pair))]
    if todo:
        kernels = _kernels(options, space.names, on_progress)
        for pair in todo:
            on_progress(wanted.index(pair), len(wanted), " and ".join(pair))
            cells.write("-".join(pair), _cell(pair, space.names, raw, kernels, options))
        store.remove(store.join(options.out, "features"))
    found = {pair: cells.read("-".join(pair)) for pair in wanted}
    return {"pairs": found, "names": space.names, "vectors": raw, "source": words.source}


def _cell(pair: tuple[str, str], names: Sequence[str], raw: Floats, kernels: Kernels, options: Options) -> Arrays:
    """One pair held out: figures per test picture, curves, and points of the projection map."""
    unseen = np.array([names.index(name) for name in pair])
    seen = np.array([i for i in range(len(names)) if i not in unseen])
    rows = np.flatnonzero(np.isin(kernels.train_labels, seen))
    kernel, across = kernels.train[np.ix_(rows, rows)], kernels.test[:, rows]
    labels = kernels.train_labels[rows]
    tables = _vector_tables(raw, seen, options)
    # A map is linear in its targets, T = Y · table: one regression on the classes serves all tables.
    classes = dual.ridge(kernels.inverse, rows, np.eye(len(names), dtype=np.float32)[labels])
    of_train, of_test = (np.asarray(k @ classes, np.float32) for k in (kernel, across))

    of_unseen = np.isin(kernels.test_labels, unseen)
    true = kernels.test_labels[of_unseen]
    arrays: Arrays = {}
    for name, table in tables.items():
        mapped = of_test @ table
        best = unseen[squared_distances(mapped[of_unseen], table[unseen]).argmin(axis=1)]
        arrays[f"unseen/{name}"] = (best == true).astype(np.uint8)
        if name == "words":
            arrays |= _novelty(mapped, of_train @ table, table, kernels, rows, seen, unseen, (kernel, across), options)
    cosines = unit_vectors(raw, None) @ unit_vectors(raw, None).T
    arrays["similarity"] = cosines[unseen][:, seen].max(axis=1)
    arrays["between"] = cosines[unseen[0], unseen[1]][None]
    return arrays


def _vector_tables(raw: Floats, seen: npt.NDArray[np.int64], options: Options) -> dict[str, Floats]:
    """The labels' vectors [10, d] in each of their forms; "words" is the one that novelty is measured with."""
    unit = unit_vectors(raw, None)
    tables = {"words": unit, "centred": unit_vectors(raw, raw[seen].mean(axis=0)), "unscaled": raw}
    for draw in range(options.draws):
        tables[f"random {draw}"] = random_vectors(len(raw), raw.shape[1], 1000 * options.seed + draw)
    return tables


def _novelty(
    mapped: Floats,
    mapped_train: Floats,
    vectors: Floats,
    kernels: Kernels,
    rows: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
    unseen: npt.NDArray[np.int64],
    parts: tuple[Floats, Floats],
    options: Options,
) -> Arrays:
    """Seen and unseen pictures among all ten classes (the paper's Figure 3): accuracies on both over all thresholds of
    the likelihood, and over λ of LoOP, whose probability weighs the two classifiers."""
    kernel, across = parts
    targets = np.searchsorted(seen, kernels.train_labels[rows])
    a, b = dual.softmax(kernel, targets, len(seen), options.softmax_penalty)
    logits = (across @ a + b).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    seen_p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    is_seen = np.isin(kernels.test_labels, seen)
    right_seen = seen[seen_p.argmax(axis=1)] == kernels.test_labels
    gaussians = fit_gaussians(mapped_train, targets, vectors[seen])
    spread = float(gaussians.variance.mean())
    unseen_p = nearest(mapped, vectors[unseen], spread)
    right_unseen = unseen[unseen_p.argmax(axis=1)] == kernels.test_labels

    # Below the threshold a picture is new, at or above it seen.
    training = np.sort(np.unique(gaussians.log_likelihood(mapped_train)))
    likelihood = gaussians.log_likelihood(mapped)
    thresholds = np.concatenate([[-np.inf], training, [np.inf]])
    on_seen = _share_at_least(likelihood[is_seen & right_seen], thresholds, int(is_seen.sum()))
    below = np.sort(likelihood[~is_seen & right_unseen])
    on_unseen = np.searchsorted(below, thresholds, "left") / int((~is_seen).sum())
    kept = np.unique(np.linspace(0, len(thresholds) - 1, QUANTILES).round().astype(np.int64))

    model = LocalOutlierProbability(mapped_train)
    plof = model.plof(mapped)
    loop = []
    for extent in EXTENTS:
        novel = model.probability(plof, extent)[:, None]
        whole = np.concatenate([(1 - novel) * seen_p, novel * unseen_p], axis=1)
        right = np.concatenate([seen, unseen])[whole.argmax(axis=1)] == kernels.test_labels
        loop.append((right[is_seen].mean(), right[~is_seen].mean()))

    chosen = np.concatenate([np.flatnonzero(kernels.test_labels == y)[:MAPPED] for y in range(len(vectors))])
    return {
        "seen": right_seen[is_seen].astype(np.uint8),
        "curve": np.stack([on_seen[kept], on_unseen[kept]], axis=1).astype(np.float32),
        "area": np.array([np.trapezoid(on_unseen, -on_seen)]),
        "eleven": _at_quantiles(on_seen, on_unseen),
        "loop": np.array(loop, np.float32),
        "mapped": mapped[chosen],
        "mapped_labels": kernels.test_labels[chosen],
        "vectors": vectors,
    }


def _share_at_least(values: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64], of: int) -> Any:
    return (len(values) - np.searchsorted(np.sort(values), thresholds, "left")) / of


def _at_quantiles(seen: npt.NDArray[np.float64], unseen: npt.NDArray[np.float64]) -> Floats:
    """The authors' eleven thresholds: quantiles of the training likelihoods, 0 to 1."""
    inner = np.linspace(1, len(seen) - 2, 11).round().astype(np.int64)
    return np.stack([seen[inner], unseen[inner]], axis=1).astype(np.float32)


def _kernels(options: Options, names: Sequence[str], on_progress: OnProgress) -> Kernels:
    folder = store.join(options.data, "cifar10")
    whole = read_pictures(store.join(folder, "train_1500_per_class.parquet"), on_progress)
    train = whole.of(names, options.train_per_class)
    test = read_pictures(store.join(folder, "test.parquet"), on_progress).of(names, options.test_per_class)
    on_progress(0, 1, "dictionary")
    layer = fit(train.pixels, options.layer, np.random.default_rng([options.seed, 53]))
    values = layer.codes(train.pixels, lambda done, of: on_progress(done, of, "features of training pictures"))
    standard = Standard(values)
    values = standard(values)
    on_progress(0, 3, "inner products")
    own = values @ values.T
    on_progress(1, 3, "inner products")
    inverse = dual.inverse(own, options.penalty)
    on_progress(2, 3, "inner products")
    across = np.empty((test.rows, train.rows), np.float32)
    for start in range(0, test.rows, 500):
        part = test.pick(range(start, min(start + 500, test.rows)))
        across[start : start + part.rows] = standard(layer.codes(part.pixels)) @ values.T
        on_progress(start + part.rows, test.rows, "features of test pictures")
    return Kernels(own, inverse, across, _numbers(train, names), _numbers(test, names))


def _numbers(pictures: Pictures, names: Sequence[str]) -> npt.NDArray[np.int64]:
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[label] for label in pictures.labels], np.int64)


def _plan(options: Options, raw: Floats) -> dict[str, Any]:
    kept = {k: v for k, v in asdict(options).items() if k not in ("data", "out", "pairs", "layer")}
    return {"comparison": "cifar10", "features": asdict(options.layer), "vectors": store.key_of(raw.tolist()), **kept}
