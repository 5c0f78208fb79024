"""The comparison on a small drawn set: whole, resumed, refused, and with a system of the user's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psdevise.cli.main import exit_code
from psdevise.compare import cifar100, tables, write
from psdevise.compare.cifar100 import Options, Words
from psdevise.errors import ConfigError
from psdevise.models.single_layer import SingleLayerOptions
from psdevise.systems.recipe import columns
from tests.compare.world import NAMES, make, words

LAYER = SingleLayerOptions(coding="triangle", bases=12, patches=500, iterations=2)
KEYS = {"system", "variant", "dataset", "split", "seed", "images", "candidates", "metric", "k", "value", "low", "high"}


class Prototypes:
    """The guide's example: the nearest class mean."""

    name, variant, needs = "prototypes", "default", ()

    def fit(self, lesson):  # type: ignore[no-untyped-def]
        return {"mean": np.stack([lesson.values[lesson.targets == i].mean(axis=0) for i in range(len(lesson.seen))])}

    def score(self, learned, known, values, labels):  # type: ignore[no-untyped-def]
        found = -np.square(values[:, None] - learned["mean"]).sum(axis=2)
        return columns(found, known.seen, labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, dict]:
    out = str(tmp_path_factory.mktemp("out") / "whole")
    own = ("tests.compare.test_cifar100:Prototypes",)
    options = Options(str(data), out, splits=1, draws=2, layer=LAYER, systems=own, validation_rows=60)
    found = cifar100.run(options, words_of(), lambda done, of, what: None)
    write.cifar100(found, options)
    return options, found


def words_of() -> list[Words]:
    return [Words(words(), str.lower, "drawn"), Words(words(5, 4), str.lower, "drawn")]


def test_every_system_has_its_rows(done: tuple[Options, dict]) -> None:
    options, _found = done
    rows = json.loads(Path(options.out, "results.json").read_text())
    assert set(rows[0]) >= KEYS
    systems = {row["system"] for row in rows}
    assert systems == {
        "devise",
        "softmax",
        "random",
        "l2",
        "wsabie",
        "conse",
        "cosine",
        "socher",
        "chollet",
        "logistic",
        "prototypes",
    }
    assert {row["variant"] for row in rows if row["system"] == "devise"} >= {
        "default",
        "whole sum",
        "4-D",
        "margin 0.5",
    }
    assert {row["split"] for row in rows} == {"one_per_superclass_0", "random_20_0"}
    for row in rows:
        if row["images"] == "unseen" and row["metric"] == "hit" and row["system"] in ("softmax", "wsabie", "logistic"):
            assert row["value"] is None, "it cannot name what it has not seen"
    seen = {
        row["system"]: row["value"]
        for row in rows
        if (row["images"], row["candidates"], row["metric"], row["k"]) == ("seen", "seen", "hit", 1)
        and row["variant"] == "default"
    }
    assert seen["prototypes"] > 0.9, "the classes are colours"


def test_paired_figures_are_the_difference_of_the_systems_own(done: tuple[Options, dict]) -> None:
    _options, found = done
    comparison = tables.Comparison(found, "random_20")
    metric = "seen/seen/hit@1"
    a, b = comparison.value("l2-default", metric), comparison.value("devise-default", metric)
    difference = comparison.difference("l2-default", "devise-default", metric)
    assert a is not None
    assert b is not None
    assert difference is not None
    assert difference.value == pytest.approx(a.value - b.value)
    assert difference.low <= difference.value <= difference.high
    assert comparison.difference("softmax-default", "devise-default", "unseen/unseen/hit@1") is None


def test_tables_and_figures_are_written(done: tuple[Options, dict]) -> None:
    options, _ = done
    text = Path(options.out, "tables.md").read_text()
    assert "| prototypes |" in text
    assert "| DeViSE above softmax at seen hp@5 (Frome 2013, Table 1) | .352 to .342 |" in text
    assert "random, draw 1 |" not in text.split("CPU seconds")[0], "draws are one row"
    drawing = Path(options.out, "curves_random_20.svg").read_text()
    assert drawing.startswith("<svg xmlns=")
    assert "prototypes" not in drawing, "it names no unseen class, so it has no such curve"


def test_the_same_command_goes_on_and_computes_only_what_is_missing(done: tuple[Options, dict], data: Path) -> None:
    options, found = done
    cells = Path(options.out, "cells")
    before = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    lost = cells / next(path.name for path in cells.glob("random_20_0_conse-default-*.npz"))
    kept = {name: found["arrays"]["random_20_0", "conse-default"][name] for name in ("seen/seen/hit@1", "curve")}
    lost.unlink()
    again = cifar100.run(options, words_of(), lambda done, of, what: None)
    after = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {lost.name}
    for name, values in kept.items():
        np.testing.assert_array_equal(again["arrays"]["random_20_0", "conse-default"][name], values)
    assert not list(Path(options.out).glob("features*")), "features of finished splits are not kept"


def test_a_comparison_that_was_stopped_midway_ends_with_the_same_tables(
    done: tuple[Options, dict], data: Path, tmp_path: Path
) -> None:
    whole, _ = done
    options = replace(whole, out=str(tmp_path / "stopped"))
    cells = Path(options.out, "cells")

    def stop(done: int, of: int, what: str) -> None:
        if cells.exists() and len(list(cells.iterdir())) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cifar100.run(options, words_of(), stop)
    kept = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert 0 < len(kept) < len(list(Path(whole.out, "cells").iterdir()))
    write.cifar100(cifar100.run(options, words_of(), lambda done, of, what: None), options)
    after = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert {name: after[name] for name in kept} == kept, "what was finished is not computed again"
    tables_of = [Path(o.out, "tables.md").read_text().split("CPU seconds")[0] for o in (whole, options)]
    assert tables_of[0] == tables_of[1]


def test_another_comparison_in_the_folder_is_refused(done: tuple[Options, dict]) -> None:
    options, _ = done
    with pytest.raises(ConfigError, match="another features"):
        cifar100.run(replace(options, layer=replace(LAYER, bases=13)), words_of(), lambda done, of, what: None)
    twice = replace(options, systems=("psdevise.systems.devise:Ridge",))
    with pytest.raises(ConfigError, match="two systems are 'l2-default'"):
        cifar100.run(twice, words_of(), lambda done, of, what: None)


def test_moved_data_go_on_and_other_data_are_refused(done: tuple[Options, dict], data: Path, tmp_path: Path) -> None:
    options, _ = done
    cells = Path(options.out, "cells")
    before = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    cifar100.run(replace(options, data=str(moved)), words_of(), lambda done, of, what: None)
    assert {path.name: path.stat().st_mtime_ns for path in cells.iterdir()} == before
    (moved / "cifar100" / "tune_10.txt").write_text("\n".join(NAMES[8:11]) + "\n")
    with pytest.raises(ConfigError, match="with another data"):
        cifar100.run(replace(options, data=str(moved)), words_of(), lambda done, of, what: None)


def test_vectors_of_a_folder_that_is_no_run_name_the_mend(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    command = ["compare", "cifar100", "--data", str(data), "--out", str(tmp_path / "out")]
    assert exit_code([*command, "--vectors", str(tmp_path / "folder")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "a folder is no file of vectors" in said
    assert "its folder is the one that holds run.json" in said


def test_the_help_names_every_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["compare", "cifar100", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in ("DeViSE", "softmax", "random", "L2", "WSABIE", "ConSE", "cosine", "Socher", "Chollet", "logistic"):
        assert name in said


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words().save(str(tmp_path / "words.parquet"))
    command = f"compare cifar100 --data {data} --out {tmp_path}/out --vectors {tmp_path}/words.parquet --splits 1"
    command += " --kind random_20 --draws 1 --bases 8 --patches 300 --validation-rows 60 --train-per-class 8"
    assert exit_code(command.split()) == 0
    assert "What the papers claim" in capsys.readouterr().out
    assert exit_code(["compare", "cifar100", "--out", str(tmp_path), "--vectors", str(tmp_path / "none.bin")]) == 1


def test_a_run_that_is_not_there_is_said_before_the_first_cell(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words().save(str(tmp_path / "words.parquet"))
    command = f"compare cifar100 --data {data} --out {tmp_path}/out --vectors {tmp_path}/words.parquet"
    assert exit_code([*command.split(), "--run", str(tmp_path / "nowhere")]) == 1
    assert "no finished run" in " ".join(capsys.readouterr().err.split())
    assert exit_code([*command.split(), "--tuning-run", str(tmp_path / "nowhere")]) == 2
    assert "give that too" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
