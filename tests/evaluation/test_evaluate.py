"""Results of made-up scores against what a reader would count by hand."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from psdevise import scores
from psdevise.data.pictures import crops_of, decode
from psdevise.evaluation import evaluate
from psdevise.evaluation.evaluate import EvaluationOptions, Scored, Setting
from psdevise.evaluation.pairing import measure, pair
from psdevise.evaluation.result import Result
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import LabelSpace
from psdevise.labels.split import Split

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
SEEN, UNSEEN = ("ant", "bee", "cat", "dog"), ("elk", "fox")
EDGES = [("ant", "insect"), ("bee", "insect"), ("cat", "pet"), ("dog", "pet"), ("elk", "wild"), ("fox", "wild")]
EDGES += [("insect", "animal"), ("pet", "mammal"), ("wild", "mammal"), ("mammal", "animal")]


@dataclass
class Named:
    name: str
    variant: str = "default"


DEVISE, SOFTMAX = Named("devise"), Named("softmax")


def setting(**changes: object) -> Setting:
    space = LabelSpace(CLASSES, {c: (c,) for c in CLASSES}, {c: c for c in CLASSES})
    options = EvaluationOptions(hit_k=(1, 2), hp_k=(1, 2))
    whole = Setting("made up", 0, Split("four", SEEN, UNSEEN), space, Hierarchy(EDGES), options)
    return replace(whole, **changes)


def scored(n: int = 60, seed: int = 0) -> Scored:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 6, n)
    ours = rng.standard_normal((n, 6)).astype(np.float32)
    ours[np.arange(n), true] += 1.5
    theirs = rng.standard_normal((n, 6)).astype(np.float32)
    theirs[:, 4:] = -np.inf
    return Scored(CLASSES, true, {"devise": ours, "softmax": theirs})


def one(rows: list[Result], **keys: object) -> Result:
    (found,) = [r for r in rows if all(getattr(r, k) == v for k, v in keys.items())]
    return found


def test_figures_are_those_of_plain_counting() -> None:
    data = scored()
    rows = evaluate.results(data, [DEVISE, SOFTMAX], setting())
    picture = [i for i, t in enumerate(data.true) if t >= 4]
    right = []
    for i in picture:
        order = sorted(range(6), key=lambda c: -data.by_system["devise"][i, c])
        right.append(data.true[i] in order[:2])
    found = one(rows, system="devise", images="unseen", candidates="seen+unseen", metric="hit", k=2)
    assert found.value == pytest.approx(np.mean(right))
    assert (found.chance, found.ceiling, found.n) == (2 / 6, 1.0, len(picture))
    hp = one(rows, system="softmax", images="unseen", candidates="seen+unseen", metric="hp", k=2)
    # C_2(elk) = {elk, fox} among all six: softmax can name neither.
    assert (hp.value, hp.chance, hp.ceiling) == (0.0, 0.0, 0.0)
    assert one(rows, system="softmax", images="unseen", candidates="seen+unseen", metric="hit", k=1).value is None
    assert not [r for r in rows if r.metric == "hit_expected"]  # no ties here


def test_candidates_that_share_a_vector_tie_whatever_the_last_bit_says() -> None:
    data = scored()
    perfect = np.zeros((60, 6), np.float32)
    perfect[np.arange(60), data.true] = 1
    perfect[data.true == 4, 5] = 1 - 1e-7
    perfect[data.true == 5, 4] = 1 - 1e-7
    data.by_system["devise"] = perfect
    groups = {"devise": np.array([0, 1, 2, 3, 4, 4])}
    rows = evaluate.results(data, [DEVISE], setting(groups=groups))
    pairing = {"system": "devise", "images": "unseen", "candidates": "seen+unseen", "k": 1}
    lost, fair = one(rows, metric="hit", **pairing), one(rows, metric="hit_expected", **pairing)
    assert (lost.value, lost.ceiling) == (0.0, 0.0)
    assert (fair.value, fair.ceiling) == (0.5, 0.5)
    assert one(rows, metric="hit", **(pairing | {"k": 2})).ceiling == 1.0
    assert one(rows, metric="harmonic").ceiling == 0.0
    seen = [r for r in rows if r.images == r.candidates == "seen"]
    assert {r.ceiling for r in seen if r.metric == "hit"} == {1.0}
    assert all(r.value <= r.ceiling for r in rows if r.value is not None and r.ceiling is not None)
    about = evaluate.about(data, [DEVISE], setting(groups=groups))
    assert [p["tied"]["devise"] for p in about["pairings"]] == [0, 2, 2, 2]  # type: ignore[index]


def test_another_true_label_is_no_candidate_even_where_its_vector_is_shared() -> None:
    matrix = np.array([[0.9, 0.5, -np.inf, 0.1]], np.float32)
    levelled = scores.level(matrix, np.array([0, 1, 0, 2]))
    assert levelled.tolist() == [[pytest.approx(0.9), 0.5, -np.inf, pytest.approx(0.1)]]


def test_a_calibrated_mean_is_the_one_of_exactly_that_bias() -> None:
    data = scored(300, 3)
    for bias in (0.0, 0.3141592653, -0.7):
        rows = evaluate.results(data, [DEVISE], setting(bias={"devise": bias}))
        shifted = data.by_system["devise"].astype(np.float64)
        shifted[:, :4] -= bias
        right = shifted.argmax(axis=1) == data.true
        expected = scores.harmonic(right[data.true < 4].mean(), right[data.true >= 4].mean())
        found = one(rows, metric="harmonic_calibrated")
        assert found.value == pytest.approx(expected)
        assert found.low < found.value < found.high  # type: ignore[operator]


def test_a_second_true_label_does_not_hide_the_harmonic_mean() -> None:
    data = scored()
    data.by_system["devise"][0, (data.true[0] + 1) % 6] = -np.inf
    rows = evaluate.results(data, [DEVISE, SOFTMAX], setting())
    assert one(rows, system="devise", metric="harmonic").value is not None
    assert one(rows, system="softmax", metric="harmonic").value is None


def test_class_means_have_their_own_interval() -> None:
    true = np.array([0] * 500 + [1] * 5 + [4, 5])
    matrix = np.zeros((507, 6), np.float32)
    matrix[:400, 0] = matrix[500:502, 1] = 1
    matrix[400:500, 2] = matrix[502:505, 3] = 1
    rows = evaluate.results(Scored(CLASSES, true, {"devise": matrix}), [DEVISE], setting())
    found = one(rows, metric="class_mean_hit", images="seen", candidates="seen")
    assert found.value == pytest.approx((0.8 + 0.4) / 2)
    assert found.high - found.low > 0.1  # five pictures are half of the mean


def test_comparisons_are_paired_and_cover_hp() -> None:
    rows = evaluate.comparisons(scored(), [DEVISE, SOFTMAX], setting())
    kinds = {(r["images"], r["candidates"], r["metric"]) for r in rows}
    assert ("seen", "seen", "hit") in kinds
    assert ("seen", "seen", "class_mean_hit") in kinds
    assert ("unseen", "seen+unseen", "hp") in kinds
    assert ("unseen", "seen+unseen", "hit") not in kinds  # softmax cannot name them
    assert ("unseen", "unseen", "hp") not in kinds
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows)  # type: ignore[operator]


def test_mean_size_of_the_ground_truth_is_told() -> None:
    about = evaluate.about(scored(), [DEVISE], setting())
    # C_2 of seen labels among seen ones: the sibling completes it. Among all: elk and fox have each other.
    assert [p["mean_correct"]["2"] for p in about["pairings"]] == [2.0, 2.0, 2.0, 2.0]  # type: ignore[index]
    assert about["hierarchy"] == Hierarchy(EDGES).hash


@pytest.mark.parametrize("block", [1, 7, 60])
def test_scores_may_come_in_blocks(block: int) -> None:
    data = scored()
    space = {c: c for c in CLASSES}
    pairing = pair(CLASSES, data.true, Split("s", SEEN, UNSEEN), "seen", "seen+unseen", Hierarchy(EDGES), space, (1, 2))
    matrix = data.by_system["devise"][np.ix_(pairing.rows, pairing.columns)]
    whole = measure([matrix], pairing)
    parts = measure([matrix[i : i + block] for i in range(0, len(matrix), block)], pairing)
    np.testing.assert_array_equal(whole.places.hits(1), parts.places.hits(1))
    for k in (1, 2):
        np.testing.assert_array_equal(whole.hp[k], parts.hp[k])


def test_ten_crops_are_centre_corners_and_their_mirror_images() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (256, 300, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    ten = crops_of(file.getvalue(), 224)
    assert ten.shape == (10, 224, 224, 3)
    left = (300 - 256) // 2
    np.testing.assert_array_equal(ten[0], picture[16:240, left + 16 : left + 240])
    np.testing.assert_array_equal(ten[1], picture[:224, left : left + 224])
    np.testing.assert_array_equal(ten[4], picture[32:, left + 32 : left + 256])
    np.testing.assert_array_equal(ten[5:], ten[:5, :, ::-1])
    assert crops_of(file.getvalue(), 32).shape == (10, 32, 32, 3)
    assert decode(file.getvalue(), 224).shape == (224, 224, 3)
