"""Charts that stand by themselves: everything is inside the picture, and what is what is told."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from psdevise.compare.figures import LETTER, write_lines, write_map

SVG = "{http://www.w3.org/2000/svg}"


def read(path: Path) -> tuple[ET.Element, list[float]]:
    root = ET.parse(path).getroot()
    return root, [float(v) for v in root.attrib["viewBox"].split()]


def test_the_names_of_curves_are_whole_and_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "lines.svg"
    curves = {"airplane–automobile": [(0.0, 0.9), (0.8, 0.9)], "a & b": [(0.0, 0.1), (0.8, 0.8)], "none": []}
    write_lines(str(path), "Curves", curves, "x", "y")
    root, (_, top, width, _) = read(path)
    right = max(float(p.split(",")[0]) for line in root.iter(f"{SVG}polyline") for p in line.attrib["points"].split())
    named = {t.text: float(t.attrib["x"]) for t in root.iter(f"{SVG}text")}
    assert "none" not in named
    for name in ("airplane–automobile", "a & b"):
        assert named[name] > right, "not over a curve"
        assert named[name] + LETTER * len(name) <= width
    lines = {t.text: float(t.attrib["y"]) for t in root.iter(f"{SVG}text")}
    assert top + 10 <= lines["Curves"] <= lines["y"] - 12, "the title is no part of y's name"


def test_a_level_is_a_line_of_its_own_over_all_x(tmp_path: Path) -> None:
    path = tmp_path / "lines.svg"
    curves = {f"system {i}": [(0.0, 0.1), (4.0 + i, 0.1 * i)] for i in range(8)}
    write_lines(str(path), "Curves", curves, "x", "y", ("the baseline at the end", 0.35))
    root, (_, _, width, _) = read(path)
    *drawn, level = list(root.iter(f"{SVG}polyline"))
    assert level.attrib["class"] not in {line.attrib["class"] for line in drawn}
    (left, low), (right, high) = (tuple(map(float, p.split(","))) for p in level.attrib["points"].split())
    ends = [[tuple(map(float, p.split(","))) for p in line.attrib["points"].split()] for line in drawn]
    assert low == high
    assert (left, right) == (min(line[0][0] for line in ends), max(line[1][0] for line in ends))
    assert low == pytest.approx((ends[3][1][1] + ends[4][1][1]) / 2, abs=0.2), ".35 lies midway between .3 and .4"
    named = {t.text: float(t.attrib["x"]) for t in root.iter(f"{SVG}text")}
    assert named["the baseline at the end"] + LETTER * len("the baseline at the end") <= width


def test_a_map_tells_its_classes_apart(tmp_path: Path) -> None:
    path = tmp_path / "map.svg"
    rng = np.random.default_rng(0)
    names = [f"kind {i}" for i in range(10)]
    vectors = rng.standard_normal((10, 5)).astype(np.float32)
    points = np.repeat(vectors, 3, axis=0) + rng.normal(0, 0.1, (30, 5)).astype(np.float32)
    write_map(str(path), "Map", points, [n for n in names for _ in range(3)], vectors, names, {"kind 3", "kind 7"})
    root, (_, _, _, height) = read(path)
    style = root.find(f"{SVG}style")
    assert style is not None
    assert len(set(re.findall(r"[.]k\d+{fill:([^;]+)", style.text or ""))) == 10, "a colour per class"
    marks = [m for m in root.iter() if m.tag in (f"{SVG}circle", f"{SVG}path")]
    assert len(marks) == 40
    assert sum("word" in m.attrib["class"] for m in marks) == 10
    assert {m.attrib["class"].split()[0] for m in marks if m.tag == f"{SVG}path"} == {"k3", "k7"}
    texts = {t.text: float(t.attrib["y"]) for t in root.iter(f"{SVG}text")}
    assert {"kind 0", "kind 3 (unseen)", "kind 7 (unseen)", "kind 9"} <= set(texts)
    assert max(texts.values()) < height
