from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from psdevise.data.pictures import PictureTable, decode
from psdevise.data.world import SCHEMA, WorldOptions, build
from psdevise.data.world.drawing import draw
from psdevise.data.world.kinds import KINDS_PER_PARENT, TRAITS, VALUES, kinds
from psdevise.data.world.telling import CONTEXTS, SPOKEN, tell
from psdevise.labels.hierarchy import Hierarchy

SMALL = WorldOptions(parents=6, train_pictures=12, test_pictures=4, sentences=60)
LOOKS = [
    "red",
    "green",
    "blue",
    "yellow",
    "white",
    "black",
    "brown",
    "orange",
    "purple",
    "pink",
    "grey",
    "gray",
    "violet",
    "colour",
    "color",
    "coloured",
    "hue",
    "shade",
    "pale",
    "dark",
    "bright",
    "light",
    "round",
    "square",
    "circle",
    "oval",
    "triangle",
    "striped",
    "stripes",
    "spotted",
    "dotted",
    "spots",
    "dots",
    "pattern",
    "plain",
    "checked",
    "texture",
    "rough",
    "smooth",
    "shiny",
    "shape",
    "shaped",
    "outline",
    "big",
    "small",
    "large",
    "long",
    "short",
    "thin",
    "thick",
    "wide",
    "tall",
    "look",
    "looks",
    "looking",
    "appearance",
    "picture",
    "pictures",
    "photo",
    "image",
    "drawing",
    "painting",
    "seen",
    "visible",
    "fin",
    "fins",
    "wing",
    "wings",
    "leg",
    "legs",
    "feet",
    "wheel",
    "wheels",
    "arm",
    "arms",
    "tail",
    "crest",
    "horn",
    "horns",
    "ring",
    "rings",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build(SMALL, str(tmp_path_factory.mktemp("world")), lambda done, of: None)


def test_the_same_seed_gives_the_same_bytes_and_another_another_world(world: dict[str, str], tmp_path: Path) -> None:
    again = build(SMALL, str(tmp_path / "again"), lambda done, of: None)
    other = build(
        WorldOptions(seed=1, parents=6, train_pictures=1, test_pictures=1, sentences=1),
        str(tmp_path / "o"),
        lambda d, o: None,
    )
    for name in world:
        assert Path(world[name]).read_bytes() == Path(again[name]).read_bytes(), name
    assert Path(world["labels"]).read_bytes() != Path(other["labels"]).read_bytes()


def test_the_text_has_no_word_of_looks(world: dict[str, str]) -> None:
    said = set(re.findall(r"\w+", Path(world["text"]).read_text()))
    assert not (said | SPOKEN).intersection(LOOKS)
    names = set(re.findall(r"\w+", Path(world["labels"]).read_text()))
    assert said <= SPOKEN | names  # nothing is said that SPOKEN does not list


def test_the_default_world_has_the_promised_size() -> None:
    found = kinds(WorldOptions().parents, np.random.default_rng([0, 1]), SPOKEN)
    assert 48 <= len(found) <= 64
    assert 12 <= sum(k.unseen for k in found) <= 16
    assert len({k.name for k in found}) == len(found)
    assert any(" " in k.name for k in found)
    for parent in {k.parent for k in found}:
        siblings = [k for k in found if k.parent == parent]
        assert len(siblings) == KINDS_PER_PARENT
        assert sum(not k.unseen for k in siblings) >= 2
        shared = [sum(a == b for a, b in zip(siblings[0].traits, k.traits, strict=True)) for k in siblings]
        assert min(shared) >= 4


def test_no_name_holds_a_word_that_the_text_uses_in_its_own_sense() -> None:
    def names(seed: int, taken: frozenset[str]) -> set[str]:
        return {w for k in kinds(14, np.random.default_rng([seed, 1]), taken) for w in k.name.split()}

    assert "gales" in names(58, frozenset())  # these seeds would draw one
    assert "gates" in names(151, frozenset())
    for seed in (58, 151, *range(10)):
        assert not names(seed, SPOKEN) & SPOKEN


def test_each_trait_shapes_the_look_and_nothing_else_does_when_there_is_no_noise() -> None:
    kind = kinds(4, np.random.default_rng(0), SPOKEN)[0]

    def look(trait: int, value: int, picture: int) -> np.ndarray:
        traits = tuple(value if i == trait else t for i, t in enumerate(kind.traits))
        return draw(replace(kind, traits=traits), 32, 0.0, np.random.default_rng(picture)).astype(np.int64)

    for trait in range(len(TRAITS)):
        for picture in range(3):  # the same position, light and noise: only the trait differs
            looks = [look(trait, value, picture) for value in range(VALUES)]
            np.testing.assert_array_equal(looks[kind.traits[trait]], look(0, kind.traits[0], picture))
            for a in range(VALUES):
                for b in range(a):
                    assert (np.abs(looks[a] - looks[b]).max(axis=2) > 20).sum() >= 5, (TRAITS[trait], a, b)


def test_each_trait_shapes_the_contexts_of_the_word() -> None:
    world = kinds(6, np.random.default_rng(0), SPOKEN)
    for kind in world:
        told = " ".join(tell([kind], 200, 0.25, np.random.default_rng(1))).split()
        for trait, value in zip(TRAITS, kind.traits, strict=True):
            counts = [sum(told.count(word) for word in words) for words in CONTEXTS[trait]]
            assert int(np.argmax(counts)) == value
            assert counts[value] < 0.95 * sum(counts)  # with noise


def test_looks_and_contexts_have_noise_of_their_own(tmp_path: Path) -> None:
    small = WorldOptions(parents=4, train_pictures=2, test_pictures=1, sentences=5)

    def files(name: str, options: WorldOptions) -> dict[str, bytes]:
        paths = build(options, str(tmp_path / name), lambda done, of: None)
        return {key: Path(path).read_bytes() for key, path in paths.items()}

    base = files("base", small)
    looks = files("looks", replace(small, look_noise=0.5))
    text = files("text", replace(small, text_noise=0.5))
    assert {k for k in base if base[k] != looks[k]} == {"train", "test"}
    assert {k for k in base if base[k] != text[k]} == {"text"}


def test_files_fit_together(world: dict[str, str]) -> None:
    train, test = PictureTable(world["train"]), PictureTable(world["test"])
    assert (train.rows, test.rows) == (24 * 12, 24 * 4)
    for table, path in ((train, world["train"]), (test, world["test"])):
        assert pq.read_schema(path).equals(SCHEMA)
        assert len(set(table.ids())) == table.rows
        labels = table.labels()
        repeated = sum(a == b for a, b in pairwise(labels))
        assert repeated < 0.15 * table.rows  # shuffled; in order of kinds it would be nearly all
        assert decode(table.read(0, 1)[0].data, 32).shape == (32, 32, 3)
    names = {row[0] for row in train.labels()}
    assert names == {row[0] for row in test.labels()}
    unseen = Path(world["unseen"]).read_text().split("\n")[:-1]
    tune = Path(world["tune"]).read_text().split("\n")[:-1]
    assert set(unseen) < names
    assert set(tune) < names - set(unseen)
    hierarchy = Hierarchy.read(world["is_a"])
    rows = [line.split("\t") for line in Path(world["labels"]).read_text().splitlines()[1:]]
    assert {r[0] for r in rows} == names
    assert all(r[1] in hierarchy for r in rows)


def test_looks_and_contexts_tell_of_the_same_traits_and_permuted_they_do_not(world: dict[str, str]) -> None:
    """A ridge map from plain pixels to word counts names unseen kinds above chance; with the words of the
    kinds permuted it does not."""
    train, test = PictureTable(world["train"]), PictureTable(world["test"])
    names = sorted({row[0] for row in train.labels()})
    unseen = Path(world["unseen"]).read_text().split("\n")[:-1]
    vocabulary = {w: i for i, w in enumerate(w for v in CONTEXTS.values() for ws in v for w in ws)}
    counts = np.zeros((len(names), len(vocabulary)))
    for sentence in re.split(r" \. |\n", Path(world["text"]).read_text()):
        for i, name in enumerate(names):
            if f" {name} " in f" {sentence} ":
                for word in sentence.split():
                    if word in vocabulary:
                        counts[i, vocabulary[word]] += 1
    contexts = np.log1p(counts) - np.log1p(counts).mean(axis=0)
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)

    def pixels(table: PictureTable, kept: set[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [p for p in table.read(0, table.rows) if p.labels[0] in kept]
        x = np.stack([decode(p.data, 32).reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).ravel() for p in rows])
        return x / 255 - 0.5, np.array([names.index(p.labels[0]) for p in rows])

    x, y = pixels(train, set(names) - set(unseen))
    x_test, y_test = pixels(test, set(unseen))
    columns = [names.index(u) for u in unseen]

    def accuracy(vectors: np.ndarray) -> float:
        m = np.linalg.solve(x.T @ x + 30 * np.eye(x.shape[1]), x.T @ vectors[y])
        return float((np.array(columns)[(x_test @ m @ vectors[columns].T).argmax(axis=1)] == y_test).mean())

    chance = 1 / len(unseen)
    permuted = [accuracy(contexts[np.random.default_rng(s).permutation(len(names))]) for s in range(20)]
    assert accuracy(contexts) > 2 * chance
    assert abs(np.mean(permuted) - chance) < 0.5 * chance
