"""What pictures are compared with in training: terms drawn from synonyms, false terms from the whole lexicon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import psdevise
from psdevise import store
from psdevise.data.vocabulary import Vocabulary
from psdevise.labels import vectors as word_vectors
from psdevise.models.devise import DeViSE
from psdevise.orchestrator.run import execute
from psdevise.phases.joint import JointOptions, joint_loss
from psdevise.phases.targets import Targets
from psdevise.systems.embedding import EmbeddingSystem
from tests.world import tiny

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((6, 4)).astype(np.float32)


def test_each_class_s_terms_are_drawn_alike_often() -> None:
    targets = Targets(VECTORS, np.array([0, 0, 0, 1, 2, 2]))
    rng = np.random.default_rng(1)
    counts = np.zeros(6)
    for _ in range(3000):
        drawn = targets.draw(rng).numpy()
        assert drawn.shape == (3, 4)
        counts += (drawn[:, None] == VECTORS).all(axis=2).sum(axis=0)
    np.testing.assert_allclose(counts / 3000, [1 / 3, 1 / 3, 1 / 3, 1, 1 / 2, 1 / 2], atol=0.03)


def test_one_term_a_class_draws_nothing() -> None:
    rng = np.random.default_rng(2)
    before = rng.bit_generator.state
    np.testing.assert_array_equal(Targets(VECTORS).draw(rng).numpy(), VECTORS)
    assert rng.bit_generator.state == before


def test_targets_come_back_from_their_file(tmp_path: Path) -> None:
    for targets in (Targets(VECTORS), Targets(VECTORS, np.array([0, 0, 1, 1, 2, 2]), VECTORS[:2])):
        targets.write(path := str(tmp_path / "t.safetensors"))
        found = Targets.read(path)
        for name in ("vectors", "owner", "lexicon"):
            before, after = getattr(targets, name), getattr(found, name)
            assert (before is None) == (after is None)
            np.testing.assert_array_equal(before, after)


def test_the_lexicon_s_terms_are_false_for_every_picture() -> None:
    """The whole sum over false labels and lexicon, by the formula."""
    module = DeViSE(nn.Identity(), 5, 4, False)
    nn.init.normal_(module.projection.weight)
    values, true = torch.from_numpy(RNG.standard_normal((3, 5)).astype(np.float32)), torch.eye(3, 4, dtype=torch.bool)
    targets = Targets(VECTORS[:4], None, VECTORS[4:])
    options = JointOptions(loss="hinge_sum", margin=0.1)
    loss, figures = joint_loss(module, (values, true), np.random.default_rng(0), targets, options)
    x = module(values).detach().numpy()
    expected = 0.0
    for i in range(3):
        s = x[i] @ VECTORS.T
        expected += sum(max(0.0, 0.1 - s[i] + s[j]) for j in range(6) if j != i)
    assert float(loss) == pytest.approx(expected / 3, rel=1e-5)
    assert figures["examples"] == 3


@dataclass
class Given:
    """A module that projects to what it is given."""

    values: np.ndarray

    def eval(self) -> Given:
        return self


def test_a_label_has_its_best_term_s_score(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = {"a": VECTORS[:2], "b": VECTORS[1:4], "c": VECTORS[4]}
    system = EmbeddingSystem("devise", Given(VECTORS), None, terms)  # type: ignore[arg-type]
    embedded = RNG.standard_normal((20, 4)).astype(np.float32)
    monkeypatch.setattr(EmbeddingSystem, "embed", lambda self, pictures: embedded)
    scores = system.score(np.zeros((20, 1, 1, 3), np.uint8), ["c", "a", "b"])
    products = embedded @ VECTORS.T
    expected = np.stack([products[:, 4], products[:, :2].max(axis=1), products[:, 1:4].max(axis=1)], axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    shared = (products[:, 1] >= products[:, 0]) & (products[:, 1] >= products[:, 2:4].max(axis=1))
    assert shared.any()
    assert (scores[shared, 1] == scores[shared, 2]).all(), "where the shared term is the best one, they tie exactly"


def test_a_run_trains_on_synonyms_and_the_lexicon(tmp_path: Path) -> None:
    run = tiny(tmp_path, "labels.resolve.terms=sample", "joint.false_terms=lexicon", "joint.fine_tuning.epochs=0")
    rows = execute(run).results
    found = {
        r["system"]: r["value"]
        for r in rows
        if (r["images"], r["candidates"], r["metric"], r["k"]) == ("seen", "seen", "hit", 5)
    }
    assert set(found) == {"devise", "random", "softmax"}
    assert found["devise"] > 5 / 12
    targets = Targets.read(str(next((tmp_path / "tiny" / "artifacts").glob("joint-devise-*")) / "targets.safetensors"))
    assert targets.lexicon is not None
    assert len(targets.lexicon) > 50


def test_the_tagger_scores_labels_as_the_evaluation_does(tmp_path: Path) -> None:
    """Trained on terms drawn from synonyms, a label has its best term's score, also where pictures are named."""
    folder = tmp_path / "tiny"
    execute(tiny(tmp_path, "joint.fine_tuning.epochs=0", "baselines=[softmax]"))
    figures = store.read_json(str(next((folder / "artifacts").glob("images-*")) / "artifact.json"))["figures"]
    words = Vocabulary.load(str(next((folder / "artifacts").glob("vocabulary-*")) / "vocabulary.parquet")).terms
    others = [w for w in words if not any(w in name for name in figures["classes"])]
    lines = [f"{name}\t{name}, {others[i]}, {others[20 + i]}" for i, name in enumerate(figures["classes"][::2])]
    lines += [f"{name}\t{name}" for name in figures["classes"][1::2]]
    (tmp_path / "labels.tsv").write_text("\n".join(["label\tterms", *lines]) + "\n")
    overrides = ("joint.fine_tuning.epochs=0", "baselines=[softmax]", f"labels.table={tmp_path}/labels.tsv")
    done = execute(tiny(tmp_path, "labels.resolve.terms=sample", *overrides))
    tagger = psdevise.load(done.folder)
    path = store.join(str(folder), store.read_json(str(folder / "tagger.json"))["index"], "labels.parquet")
    index = word_vectors.load(path, repeats=True)
    assert (len(index.terms), len(tagger.labels)) == (32, 16)

    test = pq.read_table(next((folder / "artifacts").glob("world-*")) / "test.parquet")
    true = [row[0] for row in test.column("labels").to_pylist()]
    embedded = tagger.embed(test.column("image").to_pylist())
    for part in ("seen", "unseen"):
        key = ("devise", part, part, "hit", 2)
        row = next(r for r in done.results if (r["system"], r["images"], r["candidates"], r["metric"], r["k"]) == key)
        mine = [i for i, label in enumerate(true) if label in figures[part]]
        found = tagger.nearest(embedded[mine], tagger.index_of(figures[part]), 2)
        right = [true[i] in [name for name, _ in near] for i, near in zip(mine, found, strict=True)]
        assert np.mean(right) == pytest.approx(row["value"])
    products = embedded @ index.matrix.T
    best = products.argmax(axis=1)
    assert len({tuple(index.matrix[row]) for row in best}) > 4
    for i, (first,) in enumerate(tagger.nearest(embedded, tagger.index_of(tagger.labels), 1)):
        assert first.label == index.terms[best[i]]
        assert first.score == pytest.approx(products[i].max(), abs=1e-6)
