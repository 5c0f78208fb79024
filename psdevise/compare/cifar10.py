"""`psdevise compare cifar10`: Socher et al. 2013's protocol on CIFAR-10, all 45 pairs of unseen classes.

Features (Coates and Ng 2011), their dictionary and their standardisation are fitted once on all training pictures
without labels, as in the paper. One inverse of the training pictures' inner products serves the maps of all pairs
(`systems.regression`), for each λ.

λ is chosen without the test: a map that was trained without a pair's classes has not seen their training pictures, so
it is judged by these. For each pair of unseen classes the λ is taken that does best on the 28 pairs which share no
class with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax as probabilities

from psdevise import store
from psdevise.compare import seen_or_unseen
from psdevise.compare.cells import Arrays, Cells, content
from psdevise.compare.cifar100 import Words
from psdevise.compare.frozen import OnProgress, Pictures, read_pictures
from psdevise.errors import ConfigError
from psdevise.labels.resolve import ResolveOptions, resolve
from psdevise.labels.space import LabelSpace
from psdevise.models.single_layer import SingleLayerOptions, Standard, fit
from psdevise.phases.joint import random_vectors, unit_vectors
from psdevise.systems import regression
from psdevise.systems.novelty import squared_distances

Floats = npt.NDArray[np.float32]
FILES = ("train_1500_per_class.parquet", "test.parquet", "wordnet.tsv")
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
        penalties: λ of the map, of which each pair's is chosen; softmax_penalty: λ of the softmax. Units as in
            `systems.regression`.
    """

    data: str
    out: str
    pairs: int = 45
    draws: int = 5
    train_per_class: int = 1500
    test_per_class: int = 1000
    layer: SingleLayerOptions = SingleLayerOptions()
    penalties: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    softmax_penalty: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= 45:
            raise ConfigError(f"{self.pairs} pairs", where="compare cifar10", mend="from 1 to 45")
        if len({f"{value:g}" for value in self.penalties}) < max(1, len(self.penalties)):
            raise ConfigError("a penalty stands there twice, or none", where="compare cifar10 --penalty")


@dataclass(frozen=True)
class Material:
    """Standardised features [n, width] of training and [m, width] of test pictures, and their classes."""

    train: Floats
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
        material = _material(options, space.names, on_progress)
        _maps(cells, material, space.names, unit_vectors(raw, None), options, on_progress)
        found = {penalty: cells.read(_key(penalty)) for penalty in options.penalties}
        for pair in todo:
            on_progress(wanted.index(pair), len(wanted), " and ".join(pair))
            cells.write("-".join(pair), _cell(pair, space.names, raw, material, found, options))
        store.remove(store.join(options.out, "features"))
    done = {pair: cells.read("-".join(pair)) for pair in wanted}
    return {"pairs": done, "names": space.names, "vectors": raw, "source": words.source}


def _key(penalty: float) -> str:
    return f"maps {penalty:g}"


def _maps(
    cells: Cells,
    material: Material,
    names: Sequence[str],
    vectors: Floats,
    options: Options,
    on_progress: OnProgress,
) -> None:
    """A cell per λ, of all 45 pairs: `map` [45, 10, width], the regression of each class's indicator that saw none of
    the pair's pictures, and `held_out` [45], its accuracy on the pair's training pictures.

    A map is linear in its targets, T = Y · vectors: this one serves all tables of vectors.
    """
    missing = [penalty for penalty in options.penalties if not cells.has(_key(penalty))]
    if not missing:
        return
    every = pairs(names, 45)
    on_progress(0, 1, "inner products")
    kernel = material.train @ material.train.T
    onehot = np.eye(len(names), dtype=np.float32)[material.train_labels]
    for penalty in missing:
        on_progress(0, len(every), f"maps, λ = {penalty:g}: inverse")
        inverse = regression.inverse(kernel, penalty)
        found = np.empty((len(every), len(names), material.train.shape[1]), np.float32)
        held_out = np.empty(len(every))
        for number, pair in enumerate(every):
            on_progress(number, len(every), f"maps, λ = {penalty:g}")
            unseen = np.array([names.index(name) for name in pair])
            kept = np.flatnonzero(~np.isin(material.train_labels, unseen))
            weights = np.zeros_like(onehot)
            weights[kept] = regression.ridge(inverse, kept, onehot[kept])
            found[number] = weights.T @ material.train
            of_pair = np.isin(material.train_labels, unseen)
            mapped = material.train[of_pair] @ found[number].T @ vectors
            held_out[number] = (_nearest_of(mapped, vectors, unseen) == material.train_labels[of_pair]).mean()
        del inverse
        cells.write(_key(penalty), {"map": found, "held_out": held_out})


def chosen_penalty(pair: tuple[str, str], every: Sequence[tuple[str, str]], held_out: Mapping[float, Floats]) -> float:
    """The λ of highest mean accuracy on the held-out training pictures of the pairs that share no class with `pair`."""
    apart = [number for number, other in enumerate(every) if not set(pair) & set(other)]
    return max(held_out, key=lambda penalty: float(np.mean(held_out[penalty][apart])))


def _nearest_of(mapped: Floats, vectors: Floats, unseen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.asarray(unseen[squared_distances(mapped, vectors[unseen]).argmin(axis=1)], np.int64)


def _cell(
    pair: tuple[str, str],
    names: Sequence[str],
    raw: Floats,
    material: Material,
    maps: Mapping[float, Arrays],
    options: Options,
) -> Arrays:
    """One pair held out: figures per test picture, curves, and points of the projection map."""
    every = pairs(names, 45)
    number = every.index(pair)
    unseen = np.array([names.index(name) for name in pair])
    seen = np.array([i for i in range(len(names)) if i not in unseen])
    of_unseen = np.isin(material.test_labels, unseen)
    true = material.test_labels[of_unseen]
    tables = _vector_tables(raw, seen, options, number)
    arrays: Arrays = {}
    for penalty, found in maps.items():
        mapped = material.test[of_unseen] @ found["map"][number].T @ tables["words"]
        best = _nearest_of(mapped, tables["words"], unseen)
        arrays[f"unseen/penalty {penalty:g}"] = (best == true).astype(np.uint8)
    penalty = chosen_penalty(pair, every, {p: found["held_out"] for p, found in maps.items()})
    arrays["penalty"] = np.array([penalty])
    classes = maps[penalty]["map"][number].T
    of_test = material.test @ classes
    for name, table in tables.items():
        best = _nearest_of(of_test[of_unseen] @ table, table, unseen)
        arrays[f"unseen/{name}"] = (best == true).astype(np.uint8)
    rows = np.flatnonzero(np.isin(material.train_labels, seen))
    mapped_train = (material.train @ classes)[rows] @ tables["words"]
    targets = np.searchsorted(seen, material.train_labels[rows])
    weight, bias = regression.softmax(material.train, rows, targets, len(seen), options.softmax_penalty)
    seen_p = probabilities((material.test @ weight.T + bias).astype(np.float64), axis=1)
    words, parts = tables["words"], (seen, unseen)
    arrays |= seen_or_unseen.both(of_test @ words, mapped_train, seen_p, words, parts, targets, material.test_labels)
    cosines = unit_vectors(raw, None) @ unit_vectors(raw, None).T
    arrays["similarity"] = cosines[unseen][:, seen].max(axis=1)
    arrays["between"] = cosines[unseen[0], unseen[1]][None]
    return arrays


def _vector_tables(raw: Floats, seen: npt.NDArray[np.int64], options: Options, number: int) -> dict[str, Floats]:
    """The labels' vectors [10, d] in each of their forms; "words" is the one that novelty is measured with.

    Random ones are drawn for each pair anew: exchanging the two unseen vectors turns an accuracy a into 1 − a, so that
    ½ is expected for each pair, but one draw that serves all pairs lies on the same side of it for many.
    """
    unit = unit_vectors(raw, None)
    tables = {"words": unit, "centred": unit_vectors(raw, raw[seen].mean(axis=0)), "unscaled": raw}
    for draw in range(options.draws):
        tables[f"random {draw}"] = random_vectors(len(raw), raw.shape[1], 1000 * (45 * options.seed + number) + draw)
    return tables


def _material(options: Options, names: Sequence[str], on_progress: OnProgress) -> Material:
    folder = store.join(options.data, "cifar10")
    whole = read_pictures(store.join(folder, FILES[0]), on_progress)
    train = whole.of(names, options.train_per_class)
    test = read_pictures(store.join(folder, FILES[1]), on_progress).of(names, options.test_per_class)
    labels = _numbers(train, names), _numbers(test, names)
    paths = [store.join(options.out, "features", f"{name}.npy") for name in ("train", "test")]
    if not all(map(store.exists, paths)):
        on_progress(0, 1, "dictionary")
        layer = fit(train.pixels, options.layer, np.random.default_rng([options.seed, 53]))
        values = layer.codes(train.pixels, lambda done, of: on_progress(done, of, "features of training pictures"))
        standard = Standard(values)
        _save(paths[0], standard(values))
        values = layer.codes(test.pixels, lambda done, of: on_progress(done, of, "features of test pictures"))
        _save(paths[1], standard(values))
    return Material(_load(paths[0]), _load(paths[1]), *labels)


def _save(path: str, values: Floats) -> None:
    store.write_atomic(path, lambda file: np.save(file, values))


def _load(path: str) -> Floats:
    with store.open_read(path) as file:
        return np.asarray(np.load(file), np.float32)


def _numbers(pictures: Pictures, names: Sequence[str]) -> npt.NDArray[np.int64]:
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[label] for label in pictures.labels], np.int64)


def _plan(options: Options, raw: Floats) -> dict[str, Any]:
    kept = {k: v for k, v in asdict(options).items() if k not in ("data", "out", "pairs", "layer")}
    kept["penalties"] = list(options.penalties)  # as JSON gives it back
    return {
        "comparison": "cifar10",
        "data": content(store.join(options.data, "cifar10"), FILES),
        "features": asdict(options.layer),
        "vectors": store.key_of(raw.tolist()),
        **kept,
    }
