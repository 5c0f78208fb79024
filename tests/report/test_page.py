from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from psdevise.errors import StoreError
from psdevise.report import write
from tests.report import example

EVIL = '<script>alert("x")</script>'
SECTIONS = ("results", "examples", "maps", "labels", "ran", "curves", "staleness", "bill", "config")


def parsed(html: str) -> ET.Element:
    """The page is written as XML too, so that a parser which forgives nothing can judge it."""
    return ET.fromstring(html.removeprefix("<!DOCTYPE html>"))


def text_of(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def section(root: ET.Element, name: str) -> ET.Element:
    found = root.find(f".//section[@id='{name}']")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = example.run_folder(tmp_path_factory.mktemp("report") / "run")
    path = write(str(folder))
    assert path == f"{folder}/report.html"
    return Path(path).read_text(encoding="utf-8")


def test_a_complete_run_leaves_nothing_out(page: str) -> None:
    root = parsed(page)
    assert [s.attrib["id"] for s in root.iter("section")] == list(SECTIONS)
    assert [text_of(p) for p in root.iter("p") if p.attrib.get("class") == "why"] == []


def test_the_page_is_accessible(page: str) -> None:
    root = parsed(page)
    assert root.attrib["lang"] == "en"
    assert all(image.attrib["alt"].startswith("Test picture of ") for image in root.iter("img"))
    drawings = [s for s in root.iter("svg") if s.attrib.get("aria-hidden") != "true"]
    assert drawings
    assert all(s.attrib["role"] == "img" and s.attrib["aria-label"] for s in drawings)
    for table in root.iter("table"):
        assert all(th.attrib["scope"] == "col" for th in table.find("thead").iter("th"))  # type: ignore[union-attr]
        body = table.find("tbody")
        assert body is not None
        assert all(row[0].attrib.get("scope") == "row" for row in body.iter("tr"))
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids))
    links = [a.attrib["href"] for a in root.iter("a")]
    assert links == [f"#{name}" for name in SECTIONS]


def test_nothing_is_fetched_from_elsewhere(page: str) -> None:
    root = parsed(page)
    addresses = [e.attrib[k] for e in root.iter() for k in ("src", "href") if k in e.attrib]
    assert addresses
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_result_tables(page: str) -> None:
    tables = section(parsed(page), "results").findall(".//table")
    assert len(tables) == 4 + 1  # and the paired comparisons
    head = [text_of(th) for th in tables[0].find("thead").iter("th")]  # type: ignore[union-attr]
    assert head == ["system", "hit@1", "hit@5", "class mean", "hp@1", "hp@5"]
    rows = {text_of(row[0]): row for row in tables[0].find("tbody").iter("tr")}  # type: ignore[union-attr]
    assert list(rows) == ["DeViSE", "Softmax", "Random embeddings", "chance", "ceiling"]
    assert text_of(rows["DeViSE"][1]) == "44.042.0–46.0"
    assert [cell.attrib.get("class") for cell in rows["Softmax"][1:]] == ["best"] * 5
    unseen = {text_of(row[0]): row for row in tables[1].find("tbody").iter("tr")}  # type: ignore[union-attr]
    assert [text_of(cell) for cell in unseen["Softmax"][1:4]] == ["–", "–", "–"]
    assert "+10.0 +5.0 to +15.0 above" in " ".join(text_of(cell) for cell in tables[4].iter("td"))


def test_the_sheet_of_examples(page: str) -> None:
    cards = section(parsed(page), "examples").findall(".//article")
    assert len(cards) == 8
    for card in cards:
        lists = card.findall(".//ol")
        assert [len(answers) for answers in lists] == [5, 5]
        right = [item for item in card.iter("li") if item.attrib.get("class") == "right"]
        assert len(right) == 2
        assert all("✓" in text_of(item) for item in right)


def test_what_ran_and_what_it_cost(page: str) -> None:
    root = parsed(page)
    ran = text_of(section(root, "ran"))
    assert "visual stopped 1 × and continued" in ran
    assert "visual worker 1 was restarted (5.3k examples again): out of memory <oom>" in ran
    assert "joint-devise fetch and push take 2.0 x the time of computing" in ran
    total = [row for row in section(root, "bill").iter("tr") if row.attrib.get("class") == "total"]
    assert [text_of(cell) for cell in total[0]] == ["total", "47 s", "3.000", "0.500", "7.00", "1.00", "2.00", ""]


def test_labels_are_text_wherever_they_stand(tmp_path: Path) -> None:
    labels = [EVIL + str(i) for i in range(len(example.LABELS))]
    folder = example.run_folder(tmp_path / "run", labels, pictures=30)
    rows = [row | {"system": EVIL, "dataset": EVIL} for row in example.results()]
    (folder / "results.json").write_text(json.dumps(rows))
    page = Path(write(str(folder))).read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'alert("x")' not in page.replace("&quot;", "")
    root = parsed(page)
    assert EVIL + "0" in text_of(section(root, "examples"))
    assert EVIL + "0" in text_of(section(root, "maps"))


def test_a_picture_that_is_an_address_is_not_shown(tmp_path: Path) -> None:
    folder = example.run_folder(tmp_path / "run", pictures=30)
    path = next(folder.glob("artifacts/*/samples.json"))
    samples = json.loads(path.read_text())
    samples[0]["image"] = "https://example.org/a.png"
    path.write_text(json.dumps(samples))
    page = Path(write(str(folder))).read_text(encoding="utf-8")
    assert "example.org" not in page
    assert "no picture" in page


@pytest.mark.parametrize(
    ("name", "gone", "why"),
    [
        ("run.json", ["config"], "run.json: no such file"),
        ("events.jsonl", ["ran", "curves", "staleness", "bill"], "events.jsonl: no such file"),
        ("results.json", ["results"], "results.json: no such file"),
        ("evaluate.json", ["examples", "maps", "labels", "results"], "evaluate.json: no such file"),
        ("artifacts/evaluate-0123456789abcdef/samples.json", ["examples"], "samples.json: no such file"),
        ("artifacts/evaluate-0123456789abcdef/map.safetensors", ["maps"], "map.safetensors: no such file"),
        ("artifacts/evaluate-0123456789abcdef/doctor.json", ["labels"], "doctor.json: no such file"),
        ("artifacts/evaluate-0123456789abcdef/curve.json", ["results"], "curve.json: no such file"),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
def test_what_is_missing_or_broken_is_left_out_with_a_reason(
    tmp_path: Path, name: str, gone: list[str], why: str, broken: bool
) -> None:
    folder = example.run_folder(tmp_path / "run", pictures=8)
    (folder / name).unlink()
    if broken:
        (folder / name).write_text('{"cut off')
    root = parsed(Path(write(str(folder))).read_text(encoding="utf-8"))
    for title in SECTIONS:
        reasons = [text_of(p) for p in section(root, title).iter("p") if p.attrib.get("class") == "why"]
        assert bool(reasons) == (title in gone), (title, reasons)
        if title in gone and not broken:
            assert any(why in reason for reason in reasons)


def test_an_empty_run_folder_gives_a_page_of_reasons(tmp_path: Path) -> None:
    root = parsed(Path(write(str(tmp_path))).read_text(encoding="utf-8"))
    assert text_of(root).count("Left out: ") >= len(SECTIONS)
    assert not (tmp_path / "results.md").exists()


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such run folder"):
        write(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_run_folder_that_was_moved_has_its_evaluation_inside(tmp_path: Path) -> None:
    example.run_folder(tmp_path / "run", pictures=8)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    root = parsed(Path(write(str(tmp_path / "elsewhere"))).read_text(encoding="utf-8"))
    assert [p for p in root.iter("p") if p.attrib.get("class") == "why"] == []


def test_results_md_holds_the_same_tables(tmp_path: Path) -> None:
    from psdevise.report import markdown

    folder = example.run_folder(tmp_path / "run", pictures=8)
    write(str(folder))
    assert (folder / "results.md").read_text(encoding="utf-8") == markdown(example.results()) + "\n"


@pytest.mark.chromium
def test_a_browser_renders_the_page(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync --dump-dom"
    quiet = "--disable-background-networking --disable-component-update"
    command = ["chromium", *flags.split(), *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    dom = done.stdout
    # The style sheet was parsed with the page (no policy, no cut-off element in its way), and no tag was mended:
    # the browser's own tree has as many elements of each kind as were written.
    for tag in ("table", "tr", "th", "td", "section", "article", "img", "svg", "polyline", "li"):
        assert len(re.findall(rf"<{tag}[ >]", dom)) == len(re.findall(rf"<{tag}[ >/]", page)), tag
    assert "Unseen pictures among unseen classes (DeViSE-0)" in dom
    assert "Content Security Policy" not in done.stderr
