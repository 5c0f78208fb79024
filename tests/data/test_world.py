from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from psdevise.data.pictures import PictureTable, decode
from psdevise.data.world import WorldOptions, build
from psdevise.data.world.kinds import KINDS_PER_PARENT, kinds
from psdevise.data.world.telling import CONTEXTS, FILLER, FRAMES, SPOKEN
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
    said |= set(
        re.findall(r"\w+", " ".join([*FRAMES, *FILLER, *(w for v in CONTEXTS.values() for ws in v for w in ws)]))
    )
    assert not said.intersection(LOOKS)


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


def test_files_fit_together(world: dict[str, str]) -> None:
    train, test = PictureTable(world["train"]), PictureTable(world["test"])
    assert (train.rows, test.rows) == (24 * 12, 24 * 4)
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
