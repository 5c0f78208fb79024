"""Chollet's comparison on a small drawn set, and what its pictures are made of."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from psdevise.cli.main import exit_code
from psdevise.compare import annotations, labels, last_layer, tables_labels
from psdevise.compare.frozen import Pictures
from psdevise.compare.label_vectors import LabelVectors
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace
from tests.compare.world import NAMES, make

RNG = np.random.default_rng(0)
ROWS = [tuple(f"label {i}" for i in range(12))] * 2000


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    data = make(folder)
    groups = {f"group {g}": [name for i, name in enumerate(NAMES) if i % 4 == g] for g in range(4)}
    (data / "cifar100" / "superclasses.json").write_text(json.dumps({"superclass": groups}))
    command = f"compare labels --data {data} --out {folder}/out --k 3 --k 6 --k 9 --train-per-class 15 --scenes 80"
    command += " --bases 10 --patches 400 --validation-rows 60 --epochs 3"
    assert exit_code(command.split()) == 0
    return folder


def test_everything_is_written(out: Path) -> None:
    text = (out / "out" / "tables.md").read_text()
    assert "| the baseline's final value in a tenth of its steps | scenes |" in text
    assert "| chollet, one-hot |" in text
    assert "6.95 at the end against 6.50" in text
    assert "17,000 | 17,000" in text
    drawing = (out / "out" / "curves_half_removed.svg").read_text()
    assert drawing.startswith("<svg xmlns")
    assert ">logistic at the end<" in drawing, "the value whose steps are counted"
    rows = json.loads((out / "out" / "results.json").read_text())
    assert {row["metric"] for row in rows} == {"map", "map_weighted", "map_by_image", "map_by_image_weighted", "hit"}
    assert {row["split"] for row in rows} == set(labels.CONDITIONS)
    for row in rows:
        assert row["value"] <= row["ceiling"] + 1e-9, row
    unseen = [row for row in rows if row["images"] == "unseen"]
    assert {row["system"] for row in unseen} == {"chollet"}, "a logistic regression names no unseen class"
    assert not [name for name in ("features", "training") if (out / "out" / name).exists()]


def test_a_curve_goes_on_until_shortly_before_the_end(out: Path) -> None:
    for path in (out / "out" / "cells").glob("*.npz"):
        cell = np.load(path)
        if "curve" in cell:
            steps = cell["curve"][:, 0]
            total = json.loads(str(cell["about"]))["steps"]
            assert steps[-1] == total
            assert 0.8 * total < steps[-2] < total, path.name


def test_a_lost_cell_is_made_again_alike_and_no_other(out: Path, tmp_path: Path) -> None:
    cells = out / "out" / "cells"
    lost = cells / "scenes_logistic-default.npz"
    before = np.load(lost)["by_class"]
    stamps = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    lost.unlink()
    command = f"compare labels --data {out} --out {out}/out --k 3 --k 6 --k 9 --train-per-class 15 --scenes 80"
    command += " --bases 10 --patches 400 --validation-rows 60 --epochs 3"
    assert exit_code(command.split()) == 0
    after = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert {name for name in after if after[name] != stamps[name]} == {lost.name}
    np.testing.assert_allclose(np.load(lost)["by_class"], before)
    assert exit_code([*command.split(), "--seed", "3"]) == 2, "another comparison's cells are refused"
    other = shutil.copytree(out / "cifar100", tmp_path / "other" / "cifar100").parent
    assert exit_code([*command.split(), "--data", str(other)]) == 0, "the same pictures elsewhere"
    (other / "imagenet").mkdir()
    (other / "imagenet" / "synsets_other.tsv").write_text("wnid\tterms\nroot\tthing\n")
    assert exit_code([*command.split(), "--data", str(other)]) == 2, "other names of the ancestors"
    assert exit_code([*command.split(), "--k", "3"]) == 2, "the same k twice"


def test_ancestors_and_coarse_classes_come_with_a_label() -> None:
    space = LabelSpace(("cat", "tree", "rock"), {}, {"cat": "n1", "tree": "n2"})
    hierarchy = Hierarchy([("n1", "m"), ("m", "root"), ("n2", "p"), ("p", "root"), ("n1", "pet")])
    assert annotations.ancestors(space, hierarchy) == {"cat": ("m", "pet", "root"), "tree": ("p", "root"), "rock": ()}
    found = annotations.further_labels(space, hierarchy, {"animals": ["cat"]}, {"m": "mammal", "p": "tree"})
    assert found["cat"] == ("animals (superclass)", "mammal", "pet", "root")
    assert found["tree"] == ("tree [p]", "root"), "a name that stands for another label is told apart"
    assert found["rock"] == ()


def test_labels_are_removed_and_added_at_the_rate_that_is_asked_for() -> None:
    kept = annotations.removed(ROWS, 0.8, 0)
    assert sum(map(len, kept)) / (12 * 2000) == pytest.approx(0.2, abs=0.01)
    assert all(set(row) <= set(ROWS[0]) for row in kept)
    names = [*ROWS[0], *(f"wrong {i}" for i in range(50))]
    more = annotations.added(ROWS, names, 0.5, 0)
    assert sum(map(len, more)) / (12 * 2000) == pytest.approx(1.5, abs=0.02)
    assert all(row[:12] == ROWS[0] for row in more)
    assert all(len(set(row)) == len(row) for row in more), "none is added that is there"
    assert annotations.removed(ROWS, 0.8, 0) == kept
    assert annotations.removed(ROWS, 0.8, 1) != kept


def test_a_scene_is_four_pictures_at_half_size_mostly_of_one_theme() -> None:
    coarse = {f"g{i}": [f"kind {i}"] for i in range(10)}
    values = np.arange(10, dtype=np.uint8) * 20
    pixels = np.broadcast_to(values[:, None, None, None], (10, 8, 8, 3)).copy()
    pictures = Pictures(pixels, [f"kind {i}" for i in range(10)])
    drawn, rows = annotations.scenes(pictures, coarse, 500, 1, 0)
    assert drawn.shape == (500, 8, 8, 3)
    for scene, row in zip(drawn[:50], rows, strict=False):
        tiles = [scene[:4, :4], scene[:4, 4:], scene[4:, :4], scene[4:, 4:]]
        assert [f"kind {int(tile[0, 0, 0]) // 20}" for tile in tiles] == list(row)
        assert all((tile == tile[0, 0]).all() for tile in tiles)
    together = sum(a == b for row in rows for a, b in pairwise(row)) / 1500
    # A theme has 2 of 10 kinds: both of it with .8² (alike ½), else about as by chance
    assert together == pytest.approx(0.64 * 0.5 + 0.36 * 0.1, abs=0.05)
    again, other = (annotations.scenes(pictures, coarse, 500, seed, 0)[1] for seed in (1, 2))
    assert again == rows
    assert other != rows


def test_nearest_labels_and_arithmetic_by_hand() -> None:
    names = ("king", "queen", "man", "woman", "men", "women")
    vectors = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0.0, 0.9, 0.1], [0.0, 0.1, 0.9]], np.float32)
    table = LabelVectors(names, vectors)
    assert table.nearest(["king", "woman"], ["man"], 1)[0][0] == "queen"
    assert table.nearest(["king", "woman"], ["man"], 1)[0][1] == pytest.approx(1.0)
    assert "king" not in [name for name, _ in table.nearest(["king"], top=6)][:5]
    groups = {"male": ["king", "men"], "female": ["queen", "women"]}
    assert table.moved(groups, {"male": "man", "female": "woman"}).value == 1.0
    # Nearest of king is queen (½ against .70 of men): of men king.
    assert table.siblings(groups).value == pytest.approx(1.0)


def test_the_step_that_reaches_a_level() -> None:
    curve = np.array([[1.0, 0.1], [5.0, 0.3], [9.0, 0.2]])
    assert tables_labels.reached(curve, 0.2) == 5
    assert tables_labels.reached(curve, 0.31) is None


def test_class_weights_are_capped_both_ways() -> None:
    relevant = np.zeros((1000, 50), bool)
    relevant[:, 0] = True  # 1 against a mean of .0204: 49, capped
    relevant[:1, 1:] = True
    relevant[:20, 49] = True
    found = tables_labels.weights(relevant)
    assert found[0] == tables_labels.HIGHEST
    assert found[1] == tables_labels.LOWEST
    assert found[49] == pytest.approx(0.02 / relevant.mean())


def test_a_wide_last_layer_costs_its_width() -> None:
    narrow, wide = last_layer.measure(10, 300), last_layer.measure(None, 300)
    assert (narrow.outputs, wide.outputs) == (10, 300)
    assert wide.bytes == 30 * narrow.bytes == 3 * 4 * 2049 * 300
    assert narrow.seconds > 0
