"""The whole job on a tiny world, in one process: artifacts, results, resuming, refusing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from gensim.models import KeyedVectors
from safetensors import safe_open

import psdevise
from psdevise import store
from psdevise.cli.main import exit_code
from psdevise.errors import ConfigError, DataError, LabelError, StoreError
from psdevise.evaluation.bulk import Prediction, predict_table
from psdevise.events import Event, Notice, PhaseFinished, Progress, from_plain, to_plain
from psdevise.labels.space import LabelSpace
from psdevise.orchestrator.embed import embed
from psdevise.orchestrator.estimate import estimate
from psdevise.orchestrator.run import Done, execute
from psdevise.report import write
from tests.world import PHASES, tiny

KEYS = [
    "system",
    "variant",
    "dataset",
    "split",
    "seed",
    "images",
    "candidates",
    "metric",
    "k",
    "value",
    "low",
    "high",
    "chance",
    "ceiling",
    "n",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done, list[Event]]:
    folder = tmp_path_factory.mktemp("runs")
    events: list[Event] = []
    return folder, execute(tiny(folder), events.append, finish=write), events


def test_results_have_exactly_the_promised_keys_and_sense(finished: tuple[Path, Done, list[Event]]) -> None:
    folder, done, _ = finished
    rows = json.loads((folder / "tiny" / "results.json").read_text())
    assert rows == done.results
    assert all(list(row) == KEYS or set(row) == set(KEYS) for row in rows)
    assert {row["system"] for row in rows} == {"devise", "softmax", "random"}
    unique = {
        tuple(row[k] for k in KEYS if k not in ("value", "low", "high", "chance", "ceiling", "n")) for row in rows
    }
    assert len(unique) == len(rows)
    assert {(row["dataset"], row["split"], row["seed"]) for row in rows} == {("tiny", "unseen", 0)}
    for row in rows:
        if row["value"] is not None and row["low"] is not None:
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= row["ceiling"] + 1e-9
    by = {(r["system"], r["images"], r["candidates"], r["metric"], r["k"]): r["value"] for r in rows}
    assert by["softmax", "unseen", "unseen", "hit", 1] is None
    assert by["softmax", "unseen", "seen+unseen", "hp", 5] is not None
    assert by["softmax", "seen", "seen", "hit", 1] > 2 / 12
    assert by["devise", "unseen", "unseen", "hit", 1] is not None
    assert by["devise", "seen+unseen", "seen+unseen", "harmonic_calibrated", 1] is not None


def test_artifacts_open_without_us(finished: tuple[Path, Done, list[Event]]) -> None:
    folder, _, _ = finished
    artifacts = {p.name.rsplit("-", 1)[0]: p for p in (folder / "tiny" / "artifacts").iterdir()}
    assert set(artifacts) == set(PHASES)
    words = KeyedVectors.load_word2vec_format(str(artifacts["language"] / "vectors.bin"), binary=True)
    assert words.vector_size == 24
    with safe_open(str(artifacts["joint-devise"] / "model.safetensors"), "np") as model:
        assert model.get_tensor("projection.weight").shape == (24, 32)
    with safe_open(str(artifacts["visual"] / "model.safetensors"), "np") as model:
        assert model.get_tensor("head.weight").shape == (12, 32)
    features = pq.read_table(artifacts["features"] / "train.parquet")
    assert features.num_rows == 16 * 30 * 9 // 10
    assert not (folder / "tiny" / "snapshots").exists() or not any(
        (folder / "tiny" / "snapshots").rglob("*.safetensors")
    )


def test_events_tell_of_every_phase_and_survive_json(finished: tuple[Path, Done, list[Event]]) -> None:
    folder, _, events = finished
    assert [e.phase for e in events if isinstance(e, PhaseFinished)] == PHASES
    trained = {e.phase for e in events if isinstance(e, Progress) and e.figures}
    assert {"language", "visual", "joint-devise"} <= trained
    for event in events:
        assert from_plain(json.loads(json.dumps(to_plain(event)))) is not None
    lines = (folder / "tiny" / "events.jsonl").read_text().splitlines()
    assert len(lines) == len(events)


def test_the_same_command_runs_nothing_again(finished: tuple[Path, Done, list[Event]]) -> None:
    folder, done, _ = finished
    events: list[Event] = []
    again = execute(tiny(folder), events.append)
    assert all(e.reused for e in events if isinstance(e, PhaseFinished))
    assert again.results == done.results
    assert [line for line in estimate(tiny(folder)) if line.endswith(" reuse")]
    more_workers = tiny(folder, "cluster.num_shards=1", "monitor.port=null")
    assert sum(line.endswith("  reuse") for line in estimate(more_workers)) == len(PHASES)


def test_what_changes_a_result_changes_its_key_and_of_all_behind_it(
    finished: tuple[Path, Done, list[Event]],
) -> None:
    folder, _, _ = finished
    states = {
        line.split()[0]: line.split()[-1] for line in estimate(tiny(folder, "joint.margin=0.2")) if line[:2] == "  "
    }
    assert {p for p, s in states.items() if s == "run"} == {"joint-devise", "joint-random", "index", "evaluate"}
    states = {line.split()[0]: line.split()[-1] for line in estimate(tiny(folder, "seed=1")) if line[:2] == "  "}
    assert set(states.values()) == {"run"}


def test_from_redoes_a_phase_and_what_needs_it(finished: tuple[Path, Done, list[Event]]) -> None:
    folder, done, _ = finished
    events: list[Event] = []
    again = execute(tiny(folder), events.append, redo_from="index")
    assert [e.phase for e in events if isinstance(e, PhaseFinished) and not e.reused] == ["index", "evaluate"]
    assert again.results == done.results
    with pytest.raises(ConfigError, match="phases of this run"):
        execute(tiny(folder), redo_from="jiont")


def test_the_tagger_names_with_any_terms(finished: tuple[Path, Done, list[Event]], tmp_path: Path) -> None:
    folder, done, _ = finished
    tagger = psdevise.load(done.folder)
    test = next((folder / "tiny" / "artifacts").glob("world-*")) / "test.parquet"
    table = pq.read_table(test)
    images = table.column("image").to_pylist()
    labels = [row[0] for row in table.column("labels").to_pylist()]
    embedded = tagger.embed(images[:10])
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    named = tagger.predict(images, k=3)
    assert all(len(row) == 3 and row[0].score >= row[1].score for row in named)
    right = np.mean([row[0].label == label for row, label in zip(named, labels, strict=True)])
    assert right > 2 / 16
    only = tagger.predict(images[:5], labels=["harbour", labels[0]], k=9)
    assert all({n.label for n in row} == {"harbour", labels[0]} for row in only)
    with pytest.raises(LabelError, match="zzz"):
        tagger.predict(images[:1], labels=["zzz"])
    with pytest.raises(LabelError, match="twice"):
        tagger.predict(images[:1], labels=["reef", "reef"])
    (tmp_path / "nothing.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"nothing\.png"):
        tagger.predict([str(tmp_path / "nothing.png")])
    near = [n.label for n in tagger.neighbours(labels[0], 5)]
    assert len(near) == 5
    assert labels[0] not in near


def test_bulk_prediction_goes_on_and_writes_every_id_once(
    finished: tuple[Path, Done, list[Event]], tmp_path: Path
) -> None:
    folder, done, _ = finished
    tagger = psdevise.load(done.folder)
    test = str(next((folder / "tiny" / "artifacts").glob("world-*")) / "test.parquet")
    out = str(tmp_path / "names.parquet")

    def stop(at: int, of: int) -> None:
        if at >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_table(tagger, Prediction(test, out, None, 2, 0.5, 20), stop)
    assert not store.exists(out)
    with pytest.raises(ConfigError, match="another prediction"):
        predict_table(tagger, Prediction(test, out, None, 3, 0.5, 20), lambda at, of: None)
    rows = predict_table(tagger, Prediction(test, out, None, 2, 0.5, 20), lambda at, of: None)
    found = pq.read_table(out).to_pylist()
    assert rows == len(found) == 96
    assert [r["id"] for r in found] == pq.read_table(test).column("id").to_pylist()
    for row in found:
        assert row["labels"] == ["unknown"] if row["scores"][0] < 0.5 else len(row["labels"]) == 2


def test_a_newer_run_folder_is_refused_by_name(tmp_path: Path) -> None:
    store.write_json(str(tmp_path / "tiny" / "run.json"), {"format": 99})
    with pytest.raises(ConfigError, match="format 99"):
        execute(tiny(tmp_path))


def test_wrong_inputs_are_clear_errors(tmp_path: Path, finished: tuple[Path, Done, list[Event]]) -> None:
    folder, _, _ = finished
    world = next((folder / "tiny" / "artifacts").glob("world-*"))
    files = [f"data.images.train={world}/train.parquet", f"data.images.test={world}/test.parquet", "data.world=null"]
    text = f"data.text={world}/text.txt"
    labels = f"labels.unseen={world}/unseen.txt"
    with pytest.raises(ConfigError, match="no text"):
        tiny(tmp_path, *files)
    with pytest.raises(ConfigError, match="at least ten per worker"):
        tiny(tmp_path, "cluster.num_workers=3")
    with pytest.raises((DataError, StoreError), match=r"missing\.parquet"):
        execute(tiny(tmp_path, *files, text, "data.images.train=missing.parquet"))
    with pytest.raises(StoreError, match=r"missing\.txt"):
        execute(tiny(tmp_path, *files, "data.text=missing.txt"))
    cut = tmp_path / "cut.parquet"
    cut.write_bytes((world / "train.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cut\.parquet"):
        execute(tiny(tmp_path, *files, text, f"data.images.train={cut}"))
    (tmp_path / "unseen.txt").write_text("no such kind\n")
    with pytest.raises(LabelError, match="no such kind"):
        execute(tiny(tmp_path, *files, text, f"labels.unseen={tmp_path}/unseen.txt"))
    table = pq.read_table(world / "train.parquet")
    unseen = (world / "unseen.txt").read_text().split("\n")
    gone = next(row[0] for row in table.column("labels").to_pylist() if row[0] not in unseen)
    kept = [i for i, row in enumerate(table.column("labels").to_pylist()) if row != [gone]]
    pq.write_table(table.take(kept), tmp_path / "without.parquet")
    with pytest.raises(LabelError, match=f"no training picture: {gone}"):
        execute(tiny(tmp_path, *files, text, labels, f"data.images.train={tmp_path}/without.parquet"))
    (tmp_path / "few.txt").write_text("a text without any of the kinds is no help at all " * 20)
    with pytest.raises(LabelError, match="no vector"):
        execute(tiny(tmp_path, *files, labels, f"data.text={tmp_path}/few.txt", "language.epochs=1", "visual.epochs=1"))


def test_foreign_vectors_and_language_beside_visual(finished: tuple[Path, Done, list[Event]], tmp_path: Path) -> None:
    folder, _, _ = finished
    vectors = next((folder / "tiny" / "artifacts").glob("language-*")) / "vectors.bin"
    events: list[Event] = []
    done = execute(
        tiny(tmp_path, f"language.vectors={vectors}", "visual.epochs=1", "parallel_phases=true"), events.append
    )
    assert not any(getattr(e, "phase", "") == "vocabulary" for e in events)
    assert done.results
    assert not [e for e in events if isinstance(e, Notice) and "refused" in e.text]


def test_a_run_without_pictures_is_vocabulary_and_language(
    finished: tuple[Path, Done, list[Event]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = finished
    world = next((folder / "tiny" / "artifacts").glob("world-*"))
    labels = world / "unseen.txt"
    options = (f"data.text={world}/text.txt", "data.world=null", f"vocabulary.keep=[{labels}]")
    events: list[Event] = []
    done = execute(tiny(tmp_path, *options), events.append, finish=write)
    assert done.results == []
    assert [e.phase for e in events if isinstance(e, PhaseFinished)] == ["vocabulary", "language"]
    assert not list(estimate(tiny(tmp_path, *options)))[1].endswith("run")
    kind = labels.read_text().split("\n")[0]
    asked = ["--neighbors", kind, "--labels", str(labels), "--json"]
    assert exit_code(["evaluate", "words", str(tmp_path / "tiny"), *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["neighbors"][kind]) == 5
    assert all(row["count"] > 0 for row in found["coverage"][str(labels)])
    assert exit_code(["neighbors", str(tmp_path / "tiny"), kind, "-k", "5"]) == 0
    assert found["neighbors"][kind][0][0] in capsys.readouterr().out
    assert exit_code(["neighbors", str(tmp_path / "tiny"), "nosuchterm"]) == 1
    with pytest.raises(DataError, match="word vectors alone"):
        psdevise.load(str(tmp_path / "tiny"))
    assert exit_code(["evaluate", "words", str(tmp_path)]) == 1
    with pytest.raises(ConfigError, match="trains word vectors"):
        tiny(tmp_path, *options, "language.vectors=x.bin")
    with pytest.raises(ConfigError, match="no pictures"):
        tiny(tmp_path, *options, "data.images.train=x.parquet")


def test_an_unseen_class_that_the_core_was_trained_on_is_refused(
    finished: tuple[Path, Done, list[Event]], tmp_path: Path
) -> None:
    folder = finished[0]
    names = json.loads((folder / "tiny" / "evaluate.json").read_text())["folder"]
    classes = json.loads((Path(names) / "map.json").read_text())
    leak = next(c for c, seen in zip(classes["labels"], classes["seen"], strict=True) if not seen)
    (tmp_path / "trained.txt").write_text(f"{leak}\na class of another data set\n")
    with pytest.raises(LabelError, match=f"1 unseen classes were trained on: {leak}"):
        execute(tiny(tmp_path, f"labels.trained={tmp_path / 'trained.txt'}"))
    # What it was trained on elsewhere is known where the run is evaluated on other classes.
    (tmp_path / "trained.txt").write_text("a class of another data set\n")
    execute(tiny(tmp_path, f"labels.trained={tmp_path / 'trained.txt'}"))
    world = next((tmp_path / "tiny" / "artifacts").glob("world-*"))
    pictures, space = {"unseen": str(world / "test.parquet")}, LabelSpace.read(str(world / "labels.tsv"))
    (found,) = embed(
        str(tmp_path / "tiny"), pictures, space, str(world / "is_a.tsv"), str(tmp_path / "out"), systems=["devise"]
    )
    seen = {name for name, seen in zip(classes["labels"], classes["seen"], strict=True) if seen}
    assert set(found.trained_on) == {*seen, "a class of another data set"}


@pytest.mark.parametrize("system", ["devise", "softmax"])
def test_a_run_as_files_has_the_run_s_own_figures(
    finished: tuple[Path, Done, list[Event]], tmp_path: Path, system: str
) -> None:
    """Embedded pictures and labels' vectors, read back, give the hits that the run's evaluation counted."""
    folder = finished[0] / "tiny"
    world = next((folder / "artifacts").glob("world-*"))
    space = LabelSpace.read(str(world / "labels.tsv"))
    pictures = {"unseen": str(world / "test.parquet")}
    (found,) = embed(str(folder), pictures, space, str(world / "is_a.tsv"), str(tmp_path), systems=[system])
    data, rows = found.pictures("unseen"), json.loads((folder / "results.json").read_text())
    seen = set(found.trained_on)
    names = [n for n in space.names if n in seen]
    pictures_seen = [i for i, labels in enumerate(data.labels) if labels[0] in seen]
    scores = data.values[pictures_seen] @ found.labels.matrix[[found.labels.index[n] for n in names]].T
    true = [names.index(data.labels[i][0]) for i in pictures_seen]
    where = {"system": system, "images": "seen", "candidates": "seen", "metric": "hit", "k": 1}
    (row,) = [r for r in rows if all(r[k] == v for k, v in where.items())]
    assert float((scores.argmax(axis=1) == true).mean()) == pytest.approx(row["value"])
    assert len(names) + len((world / "unseen.txt").read_text().split("\n")) - 1 == len(space.names)
    # Once more: nothing is embedded again; ten crops are another thing.
    before = (Path(found.folder) / "unseen.parquet").stat().st_mtime_ns
    again = embed(str(folder), pictures, space, str(world / "is_a.tsv"), str(tmp_path), systems=[system])
    assert (again, (Path(found.folder) / "unseen.parquet").stat().st_mtime_ns) == ([found], before)
    # The same pictures elsewhere are the same; other ones at the same place, or other terms, are not.
    copy = tmp_path / "copy.parquet"
    copy.write_bytes((world / "test.parquet").read_bytes())
    arguments = str(world / "is_a.tsv"), str(tmp_path), 1, [system]
    assert embed(str(folder), {"unseen": str(copy)}, space, *arguments) == [found]
    pq.write_table(pq.read_table(copy).slice(0, 5), copy)
    (other,) = embed(str(folder), {"unseen": str(copy)}, space, *arguments)
    assert (other.folder != found.folder, other.pictures("unseen").rows) == (True, 5)
    renamed = LabelSpace(space.names, {**space.terms, names[0]: ("harbour",)}, space.wnids)
    assert embed(str(folder), pictures, renamed, *arguments) != [found]
    (crops,) = embed(str(folder), pictures, space, str(world / "is_a.tsv"), str(tmp_path), 10, [system])
    assert crops.folder != found.folder
    assert crops.pictures("unseen").values.shape == data.values.shape
    # Labels come before pictures, whichever system lacks them.
    lacking = LabelSpace((*space.names, "zzz"), {**space.terms, "zzz": ("zzz",)}, space.wnids)
    with pytest.raises(LabelError, match="'zzz'"):
        embed(str(folder), pictures, lacking, str(world / "is_a.tsv"), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(LabelError, match="are not in the lists"):
        embed(str(folder), pictures, LabelSpace.of(["x"]), str(world / "is_a.tsv"), str(tmp_path), systems=[system])
