"""The joint loss carried into the word vectors: its gradient, and which rows move by what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from psdevise import config, store
from psdevise.data import corpus, features
from psdevise.data.features import Features
from psdevise.errors import ConfigError, DataError
from psdevise.labels import vectors as word_vectors
from psdevise.labels.composition import Composition, compose
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.resolve import ResolveOptions, resolve
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors
from psdevise.models.devise import DeViSE
from psdevise.models.skipgram import SkipGramOptions
from psdevise.orchestrator.graph import keys
from psdevise.orchestrator.plan import plan
from psdevise.orchestrator.run import execute, part_of
from psdevise.phases.carried import BuildCarried, CarriedTask, RowTargets, keep_tables
from psdevise.phases.joint import BuildProjection, JointOptions, ProjectionOptions, joint_loss, unit_vectors
from psdevise.phases.language import BuildLanguage, LanguageOptions
from psdevise.phases.targets import Targets
from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import ClusterOptions, Job
from psdevise.server.ledger import Ledger
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.task import batches, generator
from tests.world import tiny

TERMS, DIM, WIDTH, CLASSES = 40, 6, 5, 4
# Class 0 is a term, class 1 the mean of two, classes 2 and 3 share a term in their means.
COMPOSITION = Composition(
    np.array([3, 7, 9, 12, 15, 12, 20]),
    np.array([1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], np.float32),
    np.array([0, 1, 1, 2, 2, 3, 3]),
    np.arange(4),
)
ROWS = [3, 7, 9, 12, 15, 20]


def by_formula(words: np.ndarray, projection: np.ndarray, values: np.ndarray, true: np.ndarray, centre: bool) -> float:
    """The whole sum in float64, written out."""
    raw = np.stack([words[3], (words[7] + words[9]) / 2, (words[12] + words[15]) / 2, (words[12] + words[20]) / 2])
    moved = raw - raw.mean(axis=0) if centre else raw
    terms = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    total = 0.0
    for v, own in zip(values, true, strict=True):
        s = terms @ (projection @ v)
        total += sum(max(0.0, 0.1 - s[t] + s[j]) for t in np.flatnonzero(own) for j in np.flatnonzero(~own))
    return total / len(values)


def differences(f: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    found = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[i] = 1e-6
        found[i] = (f(at + step) - f(at - step)) / 2e-6
    return found


@pytest.mark.parametrize("centre", [True, False])
def test_the_gradient_reaches_projection_and_rows(centre: bool) -> None:
    """Against differences of the formula in float64: through unit norm, centre, means of words and shared rows."""
    rng = np.random.default_rng(3)
    words = rng.standard_normal((TERMS, DIM))
    projection, values = 0.3 * rng.standard_normal((DIM, WIDTH)), rng.standard_normal((9, WIDTH))
    true = rng.random((9, CLASSES)) < 0.3
    true[np.arange(9), rng.integers(0, CLASSES, 9)] = True
    module = DeViSE(nn.Identity(), WIDTH, DIM)
    module.projection.weight.data = torch.tensor(projection, dtype=torch.float32)
    targets = RowTargets(COMPOSITION, centre)
    assert targets.ids.tolist() == ROWS
    targets.rows = torch.tensor(words[targets.ids], dtype=torch.float32, requires_grad=True)
    batch = torch.tensor(values, dtype=torch.float32), torch.tensor(true)
    loss, _ = joint_loss(module, batch, rng, targets, JointOptions(loss="hinge_sum"))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(by_formula(words, projection, values, true, centre), rel=1e-5)
    by_words = differences(lambda w: by_formula(w, projection, values, true, centre), words)
    assert not np.delete(by_words, ROWS, axis=0).any()
    assert np.abs(by_words[ROWS]).min(axis=0).max() > 1e-3
    np.testing.assert_allclose(targets.rows.grad, by_words[ROWS], rtol=1e-3, atol=1e-5)
    by_projection = differences(lambda m: by_formula(words, m, values, true, centre), projection)
    np.testing.assert_allclose(module.projection.weight.grad, by_projection, rtol=1e-3, atol=1e-5)


def test_drawn_terms_are_unit_and_centred_by_what_labels_were_resolved_to() -> None:
    """Class 0 has terms 0 and 1, class 1 term 2: the mean is that of terms 0 and 2, whichever was drawn."""
    words = np.random.default_rng(0).standard_normal((TERMS, DIM)).astype(np.float32)
    one = np.ones(3, np.float32)
    targets = RowTargets(Composition(np.array([5, 6, 7]), one, np.arange(3), np.array([0, 0, 1])), centre=True)
    targets.rows = torch.from_numpy(words[targets.ids])
    mean = (words[5] + words[7]) / 2
    both = unit_vectors(words[[5, 6, 7]], mean)
    drawn = [targets.draw(np.random.default_rng(i)).numpy() for i in range(40)]
    first = [int(np.abs(d[0] - both[1]).max() < 1e-6) for d in drawn]
    assert 5 < sum(first) < 35
    for second, found in zip(first, drawn, strict=True):
        np.testing.assert_allclose(found, both[[second, 2]], atol=1e-6)


def test_labels_are_composed_as_they_were_resolved() -> None:
    """Terms, means of words (one of them twice) and of neighbours: the sum of rows is the resolved vector."""
    rng = np.random.default_rng(1)
    names = ("cat", "maple", "tree", "new", "york", "lawn")
    vectors = WordVectors(names, rng.standard_normal((6, DIM)).astype(np.float32))
    wnids = {"cat": "n1", "maple tree": "n2", "new york new": "n3", "beast": "n4"}
    labels = tuple(wnids)
    space = LabelSpace(labels, {"beast": ("monster",)} | {n: (n,) for n in labels[:3]}, wnids)
    hierarchy = Hierarchy([("n1", "n0"), ("n2", "n0"), ("n4", "n0")])
    for terms in ("first", "sample"):
        options = ResolveOptions(fallback="neighbours", terms=terms)  # type: ignore[arg-type]
        matrix, rows = resolve(space, vectors, options, hierarchy)
        assert [r.how for r in rows] == ["exact phrase", "mean of words", "mean of words", "graph neighbours"]
        found = compose(labels, space, vectors, options, rows)
        raw = np.zeros((4, DIM), np.float32)
        np.add.at(raw, found.term, found.weights[:, None] * vectors.matrix[found.rows])
        np.testing.assert_allclose(raw, matrix, atol=1e-6)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> BuildCarried:
    """Pictures of four classes, a text of words 0 to 29, and where a language phase ended."""
    folder = tmp_path_factory.mktemp("carried")
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    kind = rng.integers(0, CLASSES, 300)
    values = (rng.standard_normal((CLASSES, WIDTH))[kind] + 0.3 * rng.standard_normal((300, WIDTH))).astype(np.float32)
    table = Features([str(i) for i in range(300)], values, [(names[k],) for k in kind])
    features.write(str(folder / "train.parquet"), [table], WIDTH)
    sentences = [rng.integers(0, 30, 20).astype(np.int32) for _ in range(120)]
    corpus.write(str(folder / "corpus"), [sentences])
    counts = tuple(int(n) for n in np.bincount(np.concatenate(sentences), minlength=TERMS) + 1)
    options = LanguageOptions(skipgram=SkipGramOptions(dim=DIM, window=3, sample=0.0), block_words=90)
    language = BuildLanguage(str(folder / "corpus"), counts, options, 3)
    COMPOSITION.write(str(folder / "composition.safetensors"))
    start = dict(language().initial())
    start["input"] = rng.standard_normal((TERMS, DIM)).astype(np.float32)
    start["input.squares"] += 0.5
    WordVectors(tuple(map(str, range(TERMS))), start["input"]).save(str(folder / "vectors.bin"))
    keep_tables(start, str(folder / "tables.safetensors"))
    return BuildCarried(
        str(folder / "train.parquet"),
        names,
        str(folder / "composition.safetensors"),
        language,
        str(folder / "vectors.bin"),
        str(folder / "tables.safetensors"),
        JointOptions(projection=ProjectionOptions(epochs=3, batch=16, slices=20), loss="hinge_sum"),
    )


def trained(build: Callable[[], object], folder: Path, workers: int = 1, shards: int = 1) -> dict[str, np.ndarray]:
    part = ProjectionOptions()
    job = Job(
        run="test",
        phase="joint-devise",
        build=build,  # type: ignore[arg-type]
        snapshots=str(folder / "snapshots"),
        incarnations=str(folder / "incarnations.json"),
        seed=3,
        phase_number=3,
        cluster=ClusterOptions(host="inprocess", num_workers=workers, num_shards=shards),
        downpour=replace(part.downpour, overlap=False),
        optimizer=OptimizerOptions(rate=0.05, table_rule="sum"),
    )
    done = InProcess().train(job, lambda event: None, threading.Event())
    assert done.audit == {"finished": 900, "repeated": 0, "refused": 0}
    return dict(done.parameters)


def options(build: BuildCarried, label_rate: float, text_passes: float) -> BuildCarried:
    return replace(build, options=replace(build.options, label_rate=label_rate, text_passes=text_passes))


def test_without_rate_and_text_it_is_the_projection_alone(build: BuildCarried, tmp_path: Path) -> None:
    found = trained(options(build, 0.0, 0.0), tmp_path / "carried")
    start = build.start()
    targets = RowTargets(COMPOSITION, centre=True)
    targets.rows = torch.from_numpy(start["input"][targets.ids])
    path = str(tmp_path / "targets.safetensors")
    Targets(targets.draw(np.random.default_rng(0)).numpy()).write(path)
    alone = trained(BuildProjection(build.features, build.classes, path, build.options), tmp_path / "alone")
    np.testing.assert_array_equal(found["projection.weight"], alone["projection.weight"])
    for name in ("input", "inner", "input.squares", "inner.squares"):
        np.testing.assert_array_equal(found[name], start[name])


def test_without_text_the_labels_rows_move_and_no_others(build: BuildCarried, tmp_path: Path) -> None:
    found, start = trained(options(build, 0.5, 0.0), tmp_path, workers=2, shards=3), build.start()
    moved = np.abs(found["input"] - start["input"]).max(axis=1)
    assert moved[ROWS].min() > 0.01
    assert (np.delete(moved, ROWS) == 0).all()
    grown = (found["input.squares"] - start["input.squares"])[:, 0]
    assert (grown[ROWS] > 0).all()
    assert (np.delete(grown, ROWS) == 0).all()
    for name in ("inner", "inner.squares"):
        np.testing.assert_array_equal(found[name], start[name])


def test_a_row_steps_by_the_accumulator_that_text_uses(build: BuildCarried) -> None:
    """p ← p − rate g / √(s + ‖g‖² / dim), s ← s + ‖g‖² / dim, for a single batch and gradient."""
    from psdevise.worker.replica import Replica

    task = options(build, 0.5, 0.0)()
    replica = Replica(task.layout)
    task.bind(replica)
    for name, values in task.initial().items():
        if name in replica.tables:
            replica.tables[name][:] = values
    replica.arena.copy_(torch.linspace(-1, 1, len(replica.arena)))
    replica.open_gradient()
    batch = next(iter(task.read(0, 15, generator(0))))
    pushed, figures = task.gradient(replica, batch, generator(1), 0.0)
    assert figures["examples"] == 15
    assert task._targets.rows.grad is not None
    g = task._targets.rows.grad.numpy().astype(np.float64)
    assert np.abs(g).max() > 1e-3
    squares = 0.5 + np.square(g).mean(axis=1, keepdims=True)
    np.testing.assert_array_equal(pushed["input"][0], ROWS)
    np.testing.assert_allclose(pushed["input"][1], 0.5 * g / np.sqrt(squares), rtol=1e-5)
    np.testing.assert_allclose(-pushed["input.squares"][1], np.square(g).mean(axis=1, keepdims=True), rtol=1e-5)


def test_text_alone_trains_as_one_replica_would(build: BuildCarried, tmp_path: Path) -> None:
    """Without a rate for labels the blocks of text do what they do by themselves."""
    chosen = options(build, 0.0, 3.0)
    found, task = trained(chosen, tmp_path, shards=2), chosen()
    tables = {name: values.copy() for name, values in build.start().items()}
    ledger = Ledger(task.slices, task.epochs, 3, 60.0)
    language = build.language()
    words, order = 0, ""
    while (taken := ledger.lease(0, 0.0)) is not None:
        for batch, _ in batches(task, (3, 3), taken):
            order += "p" if isinstance(batch, tuple) else "t"
            if not isinstance(batch, tuple):
                language.model.train(tables, batch, build.language.options.rate)
                words += batch.words
        ledger.finish(0, taken, 0)
    assert words == 3 * 120 * 20
    assert "ttttt" not in order, "pictures and text alternate"
    for name, values in tables.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=2e-5)
    text = np.abs(found["input"] - build.start()["input"]).max(axis=1)
    assert (text[:30] > 0).all()
    assert (text[30:] == 0).all()


@pytest.mark.parametrize("passes", [0.25, 1.5, 7.0])
def test_the_text_is_as_much_as_was_asked(build: BuildCarried, passes: float) -> None:
    task = options(build, 1.0, passes)()
    assert isinstance(task, CarriedTask)
    words = sum(
        batch.words
        for epoch in range(task.epochs)
        for i, (start, stop) in enumerate(task.slices)
        for batch in task.read(start, stop, generator(epoch, i))
        if not isinstance(batch, tuple)
    )
    assert words == pytest.approx(passes * 120 * 20, rel=0.3)


def test_both_move_the_labels_and_text_the_rest(build: BuildCarried, tmp_path: Path) -> None:
    found, start = trained(options(build, 0.5, 3.0), tmp_path, workers=3, shards=2), build.start()
    moved = np.abs(found["input"] - start["input"]).max(axis=1)
    assert (moved[:30] > 0).all()
    assert (moved[30:] == 0).all(), "neither label nor in the text"
    assert all(np.isfinite(values).all() for values in found.values())


def test_a_language_phase_that_kept_its_vectors_alone_is_named(build: BuildCarried, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--from language"):
        replace(build, tables=str(tmp_path / "none.safetensors"))().initial()


TRAINED = ("joint.label_vectors=trained", "joint.fine_tuning.epochs=0", "baselines=[softmax, conse, random]")


def test_a_run_goes_on_with_the_vectors_that_it_trained(tmp_path: Path) -> None:
    run = tiny(tmp_path, *TRAINED, "joint.label_rate=0.5")
    rows = execute(run).results
    folder = str(tmp_path / "tiny")
    joint, language, index = (part_of(folder, part) for part in ("joint", "language", "index"))
    assert joint is not None
    assert index is not None
    assert language == joint
    original = next((tmp_path / "tiny" / "artifacts").glob("labels-*"))
    before, after = (word_vectors.load(f"{path}/labels.parquet") for path in (original, joint))
    assert before.terms == after.terms
    assert (np.abs(before.matrix - after.matrix).max(axis=1) > 1e-3).all(), "the unseen ones too: by text"
    seen = store.read_json(f"{joint}/artifact.json")["figures"]["trained_on"]
    mean = np.stack([after.vector(name) for name in seen]).mean(axis=0)
    np.testing.assert_allclose(
        word_vectors.load(f"{index}/labels.parquet").matrix, unit_vectors(after.matrix, mean), atol=1e-6
    )
    figures = store.read_json(f"{joint}/artifact.json")["figures"]
    for part in ("seen", "unseen", "others"):
        assert 0 < figures[f"neighbours_kept_{part}"] <= 1
        assert 0 < figures[f"cosine_to_before_{part}"] < 1
    found = {r["system"]: r["value"] for r in rows if (r["images"], r["metric"], r["k"]) == ("seen", "hit", 5)}
    assert found["devise"] > 5 / 12


def test_fixed_vectors_leave_the_keys_as_they_were(tmp_path: Path) -> None:
    """Neither rate nor passes count without training, and what is trained beside DeViSE never depends on them."""
    fixed, same, on = (
        {name: key for name, (key, _) in keys(plan(tiny(tmp_path, *of))).items()}
        for of in ((), ("joint.label_rate=3", "joint.text_passes=2"), ("joint.label_vectors=trained",))
    )
    assert fixed == same
    changed = {name for name, key in on.items() if key != fixed[name]}
    assert changed == {"joint-devise", "index", "evaluate"}


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("language.vectors=words.bin", "trained here"),
        ("joint.false_terms=lexicon", "joint.false_terms"),
        ("labels.resolve.terms=mean", "first, or sample"),
        ("joint.projection.epochs=0", "projection.epochs"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, override: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as caught:
        tiny(tmp_path, *TRAINED, override)
    assert caught.value.where == "joint.label_vectors"


def test_options_are_read_from_a_file() -> None:
    found = config.build(JointOptions, {"label_vectors": "trained", "label_rate": 2, "text_passes": 0.5})
    assert (found.label_rate, found.text_passes) == (2.0, 0.5)
