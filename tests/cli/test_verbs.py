"""The command line as a user meets it: help, exit codes, clear errors, names for pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from psdevise import load
from psdevise.cli import main as cli
from psdevise.cli.main import VERBS, exit_code, psdevise
from psdevise.labels.space import read_tsv
from psdevise.orchestrator.run import execute
from psdevise.report import write
from tests.world import TINY, tiny


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    execute(tiny(folder, "visual.epochs=1"), finish=write)
    return folder / "tiny"


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    found = exit_code(list(arguments))
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out + captured.err


@pytest.mark.parametrize(
    "verb",
    [[v] for v in VERBS]
    + [["data", "images"], ["data", "text"], ["data", "vectors"], ["evaluate", "words"]]
    + [["evaluate", "imagenet"], ["labels", "hops"], ["labels", "check"], ["labels", "wordnet"]],
    ids=" ".join,
)
def test_every_verb_helps_with_an_example(verb: list[str]) -> None:
    result = CliRunner().invoke(psdevise, [*verb, "--help"])
    assert result.exit_code == 0
    if verb != ["data"]:
        assert f"psdevise {' '.join(verb)} " in result.output.replace("\n", " ")


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    output(capsys, "run", code=2)
    output(capsys, "walk", code=2)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(TINY | {"nmae": "x"}))
    assert "did you mean 'name'" in output(capsys, "run", str(config), code=2)
    config.write_text(yaml.safe_dump(TINY))
    text = output(capsys, "run", str(config), "--set", "visual.epochs=0", code=2)
    assert "visual.epochs" in text
    assert "no run here" in output(capsys, "inspect", str(tmp_path), code=1)
    monkeypatch.setitem(cli.VERBS, "broken", ("psdevise.cli.nowhere", "x", ""))
    assert "bug of psdevise" in output(capsys, "broken", code=3)


def test_dry_run_opens_the_data_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(TINY))
    text = output(capsys, "run", str(config), "--dry-run", "--set", f"folder={tmp_path}/runs")
    assert "MB a shard" in text
    assert "asked of Ray: 2 CPU" in text
    assert text.count("  run") >= 9
    assert not (tmp_path / "runs").exists()


def test_options_are_listed_with_their_meaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    text = output(capsys, "run", "--options")
    assert text == output(capsys, "run", str(config), "--options")
    assert "visual.downpour.n_push = 1" in text
    assert "steps whose gradients are summed into one push" in text


def test_evaluate_prints_the_table_or_the_json(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = output(capsys, "evaluate", str(run_folder))
    assert "DeViSE-0" in table
    assert exit_code(["evaluate", str(run_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run_folder / "results.json").read_text())


def test_evaluating_a_run_of_words_alone_points_to_what_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("data: {text: text.txt}")
    said = " ".join(output(capsys, "evaluate", str(tmp_path), code=1).split())
    assert "word vectors alone" in said
    assert "psdevise evaluate words" in said
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"], "nothing is trained"


def test_a_run_is_evaluated_where_it_lies_now(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its configuration names the folder that it was trained in."""
    moved = Path(shutil.copytree(run_folder, tmp_path / "elsewhere" / "tiny"))
    before = (run_folder / "results.json").read_bytes()
    text = output(capsys, "evaluate", str(moved), "--set", "evaluate.hit_k=[1, 3]")
    assert re.search(r"visual +reused", text)
    assert {r["k"] for r in json.loads((moved / "results.json").read_text()) if r["metric"] == "hit"} == {1, 3}
    assert (run_folder / "results.json").read_bytes() == before


def test_predict_names_pictures_with_given_terms(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = next((run_folder / "artifacts").glob("world-*")) / "test.parquet"
    row = pq.read_table(test).slice(0, 1).to_pylist()[0]
    picture, terms = tmp_path / "p.png", tmp_path / "terms.txt"
    picture.write_bytes(row["image"])
    terms.write_text(f"harbour\n{row['labels'][0]}\n")
    text = output(capsys, "predict", str(run_folder), str(picture), "--labels", str(terms))
    assert {"harbour", row["labels"][0]} == {line.split(maxsplit=1)[1] for line in text.splitlines() if line[:1] == " "}
    assert "unknown" in output(capsys, "predict", str(run_folder), str(picture), "--min-score", "2")
    output(capsys, "predict", str(run_folder), str(test), code=2)
    out = tmp_path / "names.parquet"
    output(capsys, "predict", str(run_folder), str(test), "--out", str(out))
    assert pq.read_table(out).num_rows == 96
    terms.write_text("nosuchterm\n")
    assert "nosuchterm" in output(capsys, "predict", str(run_folder), str(picture), "--labels", str(terms), code=1)
    assert "missing.png" in output(capsys, "predict", str(run_folder), "missing.png", code=1)


def test_own_vectors_in_predict(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = next((run_folder / "artifacts").glob("world-*")) / "test.parquet"
    picture, terms, vectors = tmp_path / "p.png", tmp_path / "terms.txt", tmp_path / "v.txt"
    picture.write_bytes(pq.read_table(test).column("image")[0].as_py())
    terms.write_text("brandnew\n")
    vectors.write_text("brandnew " + " ".join(["1"] * 24) + "\n")
    text = output(capsys, "predict", str(run_folder), str(picture), "--labels", str(terms), "--vectors", str(vectors))
    assert "brandnew" in text
    vectors.write_text("brandnew 1 2\n")
    arguments = ["predict", str(run_folder), str(picture), "--labels", str(terms), "--vectors", str(vectors)]
    assert "2 dimensions" in output(capsys, *arguments, code=1)


def test_search_finds_pictures_of_any_term(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = next((run_folder / "artifacts").glob("world-*")) / "test.parquet"
    table = pq.read_table(test).to_pylist()
    arguments = ["search", "harbour", table[0]["labels"][0], "--images", str(test), "-k", "4"]
    assert exit_code([*arguments, "--run", str(run_folder), "--json", "--sheet", str(tmp_path / "s.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["term"], r["rank"]) for r in found] == [(t, i) for t in arguments[1:3] for i in (1, 2, 3, 4)]
    tagger = load(str(run_folder))
    cosines = tagger.index_of(["harbour"]).scores(tagger.embed([row["image"] for row in table]))[:, 0]
    best = np.argsort(-cosines, kind="stable")[:4]
    assert [r["id"] for r in found[:4]] == [table[i]["id"] for i in best]
    assert [r["score"] for r in found[:4]] == pytest.approx(cosines[best].tolist(), abs=1e-5)
    assert Image.open(tmp_path / "s.png").width > 4 * 128
    # Folders of pictures, the run before the terms, and a page.
    (tmp_path / "photos" / "some").mkdir(parents=True)
    (tmp_path / "photos" / "some" / "p.png").write_bytes(table[0]["image"])
    (tmp_path / "photos" / "some" / "broken.png").write_bytes(b"no picture")
    page = tmp_path / "s.html"
    photos = ["search", str(run_folder), "harbour", "--images", str(tmp_path / "photos"), "--sheet", str(page)]
    assert "some/p.png" in output(capsys, *photos)
    assert page.read_text().count('<img src="data:image/png;base64,') == 1
    assert "a .png or .html" in output(capsys, *photos[:-1], str(tmp_path / "s.jpg"), code=2)
    assert "some/p.png" in output(capsys, *photos[:-1], str(tmp_path / "photos" / "some" / "p.png" / "s.png"), code=1)
    monkeypatch.chdir(tmp_path)
    assert "no finished run" in output(capsys, *arguments, code=2)
    assert "nosuchterm" in output(capsys, "search", str(run_folder), "nosuchterm", "--images", str(test), code=1)


def test_neighbors_and_inspect(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "harbour" in output(capsys, "neighbors", str(run_folder), "harbour", "-k", "3")
    text = output(capsys, "inspect", str(run_folder), "--labels")
    assert "joint-devise" in text
    assert "exact phrase" in text


def test_data_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    world = next((run_folder / "artifacts").glob("world-*"))
    out = output(capsys, "data", "images", f"{world}/test.parquet", str(tmp_path / "images"), "--processes", "1")
    assert "96 pictures of 16 classes" in out
    out = output(capsys, "data", "text", f"{world}/text.txt", str(tmp_path / "text"), "--processes", "1")
    assert "words" in out
    assert "another conversion" in output(
        capsys, "data", "images", f"{world}/train.parquet", str(tmp_path / "images"), code=2
    )
    assert "missing" in output(capsys, "data", "text", "missing.txt", str(tmp_path / "t2"), code=1)


def test_a_run_goes_through_the_imagenet_protocol(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables 1 to 4 of a real run; a leak is refused before a picture is embedded."""
    world = next((run_folder / "artifacts").glob("world-*"))
    unseen = (world / "unseen.txt").read_text().split("\n")[:-1]
    rows = read_tsv(str(world / "labels.tsv"), ("label", "wnid"))
    name = {row["wnid"]: row["label"] for row in rows}  # its labels are what ImageNet's wnids are
    edges = read_tsv(str(world / "is_a.tsv"), ("child", "parent"))
    lines = {
        "is-a": ["child\tparent", *(f"{name.get(e['child'], e['child'])}\t{e['parent']}" for e in edges)],
        "all": ["wnid\tterms", *(f"{n}\t{n}" for n in name.values())],
        "seen": ["wnid\tterms", *(f"{n}\t{n}" for n in name.values() if n not in unseen)],
    }
    for stem, text in lines.items():
        (tmp_path / f"{stem}.tsv").write_text("\n".join(text) + "\n")
    paths = {stem: f"--{stem}={tmp_path}/{stem}.tsv" for stem in lines}
    test = str(world / "test.parquet")
    tables = ["evaluate", "imagenet", str(run_folder), f"--supervised={test}", f"--unseen={test}", *paths.values()]
    assert "| ImageNet 2011 21K | DeViSE-0 24-D | 4 |" in output(capsys, *tables, f"--out={tmp_path}/out")
    own = {
        (r["system"], r["images"], r["candidates"], r["metric"], r["k"]): r["value"] for r in load_results(run_folder)
    }
    found = [r for r in load_results(tmp_path / "out") if (r["metric"], r["system"]) == ("hit", "devise")]
    assert {r["split"] for r in found} == {"ILSVRC 2012 1K", "3-hop", "ImageNet 2011 21K"}  # siblings
    for row in found:
        if row["split"] in ("ILSVRC 2012 1K", "ImageNet 2011 21K"):
            assert row["value"] == own["devise", row["images"], row["candidates"], "hit", row["k"]], row
    # Table 4: here the 1K are all classes, of which the run's unseen ones are set apart.
    split = [f"--split-run={run_folder}", f"--split-unseen={world}/unseen.txt", f"--split-test={test}"]
    whole = [paths["all"].replace("--all", "--seen"), paths["all"], paths["is-a"], f"--out={tmp_path}/split"]
    assert "12/4 of unseen.txt" in output(capsys, "evaluate", "imagenet", *split, *whole)
    (tmp_path / "seen.tsv").write_text("\n".join(lines["seen"][:-1]) + "\n")
    text = output(capsys, *tables, f"--out={tmp_path}/leak", code=1)
    assert f"1 unseen classes were trained on: {lines['seen'][-1].split()[0]}" in " ".join(text.split())
    (tmp_path / "one.txt").write_text(lines["seen"][1].split("\t")[0] + "\n")
    split[1] = f"--split-unseen={tmp_path}/one.txt"
    text = output(capsys, "evaluate", "imagenet", *split, *whole[:3], f"--out={tmp_path}/leak", code=1)
    assert "1 unseen classes were trained on" in " ".join(text.split())
    assert not (tmp_path / "leak").exists()


def load_results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    return found
