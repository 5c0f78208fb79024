"""Socher's protocol on a small drawn set of the same form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from psdevise.cli.main import exit_code
from psdevise.compare import cifar10, tables10
from psdevise.labels.vectors import WordVectors
from tests.compare.world import colours, table

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("data") / "cifar10"
    table(home / "train_1500_per_class.parquet", 12, 0, NAMES)
    table(home / "test.parquet", 8, 1, NAMES)
    lines = [f"{name}\tn{i:08d}\t{name}" for i, name in enumerate(NAMES)]
    (home / "wordnet.tsv").write_text("\n".join(["label\twnid\tterms", *lines]) + "\n")
    return home.parent


def vectors() -> WordVectors:
    through = np.random.default_rng(0).standard_normal((3, 6))
    return WordVectors(NAMES, (((colours()[:10] - 128) / 64) @ through).astype(np.float32))


def test_pairs_are_all_45_once_the_papers_first() -> None:
    found = cifar10.pairs(NAMES, 45)
    assert len({frozenset(pair) for pair in found}) == 45
    assert tuple(found[:5]) == cifar10.SHOWN


def test_the_command_resumes_and_writes_everything(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors().save(str(tmp_path / "words.parquet"))
    out = tmp_path / "out"
    command = f"compare cifar10 --data {data} --out {out} --vectors {tmp_path}/words.parquet --pairs 6 --draws 2"
    command += " --train-per-class 12 --test-per-class 8 --bases 10 --patches 400 --penalty .1 --penalty 1"
    assert exit_code(command.split()) == 0
    text = capsys.readouterr().out
    assert "| **mean of 6** |" in text
    assert "LoOP, λ = 3" in text
    assert "chosen on these very test pictures" in " ".join(text.split())
    for name in ("curves.svg", "loop.svg", "map.svg"):
        assert (out / name).read_text().startswith("<svg xmlns")
    rows = json.loads((out / "results.json").read_text())
    assert {row["system"] for row in rows} == {"socher", "random", "softmax"}
    assert {row["split"] for row in rows} >= {"cat-truck", "cat-dog"}

    loop = next(row for row in rows if row["variant"] == "LoOP" and row["split"] == "cat-dog")
    seen, unseen = np.load(out / "cells" / "cat-dog.npz")["loop"][2].astype(float)
    assert loop["value"] == pytest.approx(2 * seen * unseen / max(seen + unseen, 1e-12))

    before = np.load(out / "cells" / "cat-dog.npz")["curve"]
    (out / "cells" / "cat-dog.npz").unlink()
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert exit_code(command.split()) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert {name for name in after if after[name] != stamps.get(name)} == {"cat-dog.npz"}
    np.testing.assert_allclose(np.load(out / "cells" / "cat-dog.npz")["curve"], before)
    assert exit_code([*command.split(), "--penalty", "2"]) == 2, "another comparison's cells are refused"
    capsys.readouterr()
    other = shutil.copytree(data, tmp_path / "other")
    table(other / "cifar10" / "test.parquet", 8, 2, NAMES)
    assert exit_code([*command.split(), "--data", str(other)]) == 2, "as are other pictures"
    assert "with another data" in " ".join(capsys.readouterr().err.split())


def test_the_curve_counts_what_stands_on_either_side_of_each_threshold(data: Path, tmp_path: Path) -> None:
    from psdevise.compare.cifar100 import Words
    from psdevise.models.single_layer import SingleLayerOptions

    layer = SingleLayerOptions(bases=10, patches=400, iterations=2)
    options = cifar10.Options(str(data), str(tmp_path), 1, 1, 12, 8, layer)
    found = cifar10.run(options, Words(vectors(), str.lower, ""), lambda done, of, what: None)
    arrays = found["pairs"][cifar10.SHOWN[0]]
    curve = arrays["curve"]
    assert tuple(curve[0]) == (pytest.approx(arrays["seen"].mean()), 0.0), "below every threshold all is taken for seen"
    assert curve[-1, 0] == 0.0
    # Beyond every threshold all is new, and the nearest of two vectors names it.
    assert curve[-1, 1] == pytest.approx(arrays["unseen/words"].mean())
    assert (np.diff(curve[:, 0]) <= 0).all()
    assert (np.diff(curve[:, 1]) >= 0).all()
    # The authors' eleven thresholds are some of them.
    assert arrays["eleven"].shape == (11, 2)
    assert {tuple(point) for point in arrays["eleven"].tolist()} <= {tuple(point) for point in curve.tolist()}


def test_a_pair_is_what_scikit_learns_ridge_makes_of_the_features(data: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    from psdevise.compare.cifar100 import Words
    from psdevise.compare.frozen import read_pictures
    from psdevise.models.single_layer import SingleLayerOptions, Standard, fit

    layer = SingleLayerOptions(bases=10, patches=400, iterations=2)
    options = cifar10.Options(str(data), str(tmp_path), 2, 0, 12, 8, layer, penalties=(0.05,))
    quiet = lambda done, of, what: None  # noqa: E731
    found = cifar10.run(options, Words(vectors(), str.lower, ""), quiet)
    train = read_pictures(str(data / "cifar10/train_1500_per_class.parquet"), quiet)
    test = read_pictures(str(data / "cifar10/test.parquet"), quiet)
    coded = fit(train.of(NAMES).pixels, layer, np.random.default_rng([0, 53]))
    raw = coded.codes(train.of(NAMES).pixels)
    values, standard = Standard(raw)(raw).astype(np.float64), Standard(raw)
    unit = vectors().matrix / np.linalg.norm(vectors().matrix, axis=1, keepdims=True)
    for pair, arrays in found["pairs"].items():
        rows = [i for i, label in enumerate(train.labels) if label not in pair]
        targets = unit[[NAMES.index(train.labels[i]) for i in rows]]
        scale = 0.05 * np.square(values).sum() / len(values)
        model = Ridge(alpha=scale, fit_intercept=False).fit(values[rows], targets)
        picked = test.of(NAMES).of(pair)
        mapped = model.predict(standard(coded.codes(picked.pixels)).astype(np.float64))
        distance = np.linalg.norm(mapped[:, None] - unit[[NAMES.index(name) for name in pair]], axis=2)
        right = [pair[best] == label for best, label in zip(distance.argmin(axis=1), picked.labels, strict=True)]
        np.testing.assert_array_equal(arrays["unseen/words"], right)


def test_random_vectors_are_right_half_of_the_time(data: Path, tmp_path: Path) -> None:
    """Exchanging the two unseen vectors turns an accuracy a into 1 − a, so ½ is expected whatever the features."""
    from psdevise.compare.cifar100 import Words
    from psdevise.models.single_layer import SingleLayerOptions

    layer = SingleLayerOptions(bases=8, patches=300, iterations=2)
    options = cifar10.Options(str(data), str(tmp_path), 45, 20, 12, 8, layer, penalties=(0.3,))
    found = cifar10.run(options, Words(vectors(), str.lower, ""), lambda done, of, what: None)
    matrix = tables10.by_draw(found["pairs"])
    assert matrix.shape == (45, 20)
    error = matrix.std() / np.sqrt(matrix.size)
    assert abs(matrix.mean() - 0.5) < 4 * error
    assert 0 < error < 0.02
    # A draw is no other pair's: its mean over pairs is as near to ½ as independent draws are.
    assert matrix.mean(axis=0).std() < 2 * matrix.std() / np.sqrt(45)


def test_a_pairs_penalty_is_chosen_by_pairs_that_share_no_class_with_it() -> None:
    every = cifar10.pairs(NAMES, 45)
    pair = ("cat", "truck")
    apart = np.array([not set(pair) & set(other) for other in every])
    held_out = {0.1: np.where(apart, 0.5, 1.0).astype(np.float32), 3.0: np.where(apart, 0.6, 0.0).astype(np.float32)}
    assert apart.sum() == 28
    assert cifar10.chosen_penalty(pair, every, held_out) == 3.0


def test_readings_of_a_curve() -> None:
    curve = np.array([[0.8, 0.0], [0.7, 0.2], [0.69, 0.5]])
    assert tables10.unseen_at(curve, 0.7) == 0.2
    assert tables10.unseen_at(curve, 0.9) is None
    assert tables10.best_loop(np.array([[0.8, 0.0], [0.5, 0.5], [0.9, 0.1]])) == (0.5, 0.5, 2)


def test_what_no_pair_reaches_is_not_testable() -> None:
    arrays = {
        "unseen/words": np.array([1, 0], np.uint8),
        "seen": np.array([1, 0], np.uint8),
        "curve": np.array([[0.5, 0.0], [0.0, 0.5]]),
    }
    assert "| no pair has 70 | not testable at this size |" in "\n".join(tables10._claims({("a", "b"): arrays}))
    arrays["curve"] = np.array([[0.8, 0.0], [0.7, 0.2]])
    assert "| 20.0 to 20.0 on 1 pairs | held |" in "\n".join(tables10._claims({("a", "b"): arrays}))
