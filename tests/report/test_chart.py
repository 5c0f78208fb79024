from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from psdevise.errors import DataError
from psdevise.report.chart import Mark, Series, bars, lines, scatter, ticks
from psdevise.report.maps import tsne

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, finite)
def test_ticks_enclose_their_range_with_round_steps(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    # A thousandth of a pixel, and the rounding of ticks to twelve places.
    slack = 1e-6 * (abs(low) + abs(high) + found[1] - found[0]) + 1e-11
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    if high - low > 1e-3:
        step = found[1] - found[0]
        assert re.fullmatch(r"[125](\.0+)?e[+-]\d+", f"{step:.3e}")


@given(st.lists(st.tuples(st.floats(0, 1e6), finite), min_size=1, max_size=40))
def test_lines_stay_inside_their_picture(points: list[tuple[float, float]]) -> None:
    root = ET.fromstring(lines([Series("s", sorted(points))], "a chart", "x", "y"))
    assert root.attrib["role"] == "img"
    for pair in root.find("polyline").attrib["points"].split():  # type: ignore[union-attr]
        x, y = map(float, pair.split(","))
        assert -0.1 <= x <= 480.1
        assert -0.1 <= y <= 230.1


def test_a_bar_is_as_tall_as_its_value() -> None:
    root = ET.fromstring(bars([("0", 10.0), ("1", 40.0)], "bars", "x", "y"))
    heights = [float(r.attrib["height"]) for r in root.findall("rect")]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.2)


def test_seen_and_unseen_differ_in_shape_and_texts_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    marks = [Mark(rng.random(), rng.random(), i % 3 > 0, f"title {i}", f"label {i}") for i in range(300)]
    root = ET.fromstring(scatter(marks, "a map"))
    assert len(root.findall("circle")) == 200
    assert len(root.findall("path")) == 100
    assert len(root.findall(".//title")) == 300
    boxes = []
    for text in root.findall("text"):
        x, y, wide = float(text.attrib["x"]), float(text.attrib["y"]), 6.6 * len(text.text or "")
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[text.attrib["text-anchor"]]
        boxes.append((left, y - 10, left + wide, y + 2))
    assert len(boxes) > 30
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] + 0.2 or b[2] <= a[0] + 0.2 or a[3] <= b[1] + 0.2 or b[3] <= a[1] + 0.2


def test_tsne_keeps_clusters_together_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 20))
    group = np.arange(60) % 3
    vectors = (centres[group] + 0.05 * rng.normal(size=(60, 20))).astype(np.float32)
    at = tsne(vectors)
    assert at.min() >= 0
    assert at.max() <= 1
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1) + 9 * np.eye(60)
    assert (group[distance.argmin(axis=1)] == group).all()
    np.testing.assert_array_equal(at, tsne(vectors))


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        (np.eye(5), "says nothing"),
        (np.ones((20, 4)), "the same"),
        (np.full((20, 4), np.nan), "not finite"),
    ],
)
def test_maps_that_cannot_be_drawn(vectors: np.ndarray, why: str) -> None:
    with pytest.raises(DataError, match=why):
        tsne(vectors.astype(np.float32))
