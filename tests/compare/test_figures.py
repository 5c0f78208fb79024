"""Charts that stand by themselves: everything is inside the picture, and what is what is told."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

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
