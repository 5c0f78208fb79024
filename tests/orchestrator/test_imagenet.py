"""Real ImageNet pictures, of many sizes and some grey, through AlexNet at 224 px: from preparation to prediction."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import psdevise
from psdevise import config
from psdevise.data.pictures import PictureTable
from psdevise.labels.space import LabelSpace
from psdevise.labels.vectors import WordVectors, save_parquet
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.run import execute

UNSEEN = 72  # a few to train on: it is a large net


@pytest.mark.slow
def test_real_pictures_go_through_alexnet(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "imagenet_sample" / "original_112.parquet"
    space = LabelSpace.read(str(shared_data / "imagenet" / "synsets_1k.tsv"))
    terms = list(dict.fromkeys(space.terms[name][0].lower() for name in space.names))
    drawn = np.random.default_rng(0).standard_normal((len(terms), 50)).astype(np.float32)
    save_parquet(WordVectors(tuple(terms), drawn), str(tmp_path / "words.parquet"))
    table = pq.read_table(source).to_pylist()
    assert {Image.open(io.BytesIO(row["image"])).mode for row in table} == {"RGB", "L"}
    (tmp_path / "unseen.txt").write_text("".join(f"{row['wnid']}\n" for row in table[:UNSEEN]))
    once = {"slices": 10, "epochs": 1, "optimizer": {"rate": 0.001}}
    options = config.build(
        RunOptions,
        {
            "name": "sample",
            "folder": str(tmp_path),
            "data": {"images": {"train": str(source), "test": str(source), "labels_column": "wnid", "processes": 1}},
            "labels": {
                "table": str(shared_data / "imagenet" / "synsets_1k.tsv"),
                "is_a": str(shared_data / "imagenet" / "is_a.tsv"),
                "unseen": str(tmp_path / "unseen.txt"),
            },
            "language": {"vectors": str(tmp_path / "words.parquet")},
            "visual": {"core": {"name": "alexnet", "size": 224}, "feed": {"batch": 16, "augment": "resize"}, **once},
            "joint": {
                "projection": {"batch": 16, **once},
                "fine_tuning": {"epochs": 0},  # as the visual phase, and as long
            },
            "baselines": ["softmax"],
            "cluster": {"host": "inprocess", "num_workers": 1, "num_shards": 1, "snapshot_seconds": 1e6},
            "monitor": {"port": None},
        },
    )
    done = execute(options)
    images = next(Path(done.folder, "artifacts").glob("images-*"))
    manifest = json.loads((images / "train" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["skipped"], len(manifest["classes"])) == (112, {}, 112)
    prepared = PictureTable(str(images / "train"))
    at = {row["wnid"]: row["image"] for row in table}
    assert all(at[p.labels[0]] == p.data for p in prepared.read(0, 112)), "the original bytes"

    rows = {(r["system"], r["images"], r["candidates"], r["metric"], r["k"]): r for r in done.results}
    assert rows["softmax", "seen", "seen", "hit", 1]["n"] == 112 - UNSEEN
    assert rows["devise", "unseen", "unseen", "hit", 5]["n"] == UNSEEN
    assert rows["devise", "unseen", "unseen", "hit", 5]["chance"] == pytest.approx(5 / UNSEEN)

    tagger = psdevise.load(done.folder)
    unseen = table[:UNSEEN]
    embedded = tagger.embed([row["image"] for row in unseen])
    assert embedded.shape == (UNSEEN, 50)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert len(np.unique(embedded.round(5), axis=0)) == UNSEEN, "pictures are told apart"
    (named,) = tagger.predict([unseen[0]["image"]], labels=["tench", "tabby", "goldfish"], k=3)
    assert {name for name, _ in named} == {"tench", "tabby", "goldfish"}
    # What the run counted is what the tagger says.
    found = tagger.nearest(embedded, tagger.index_of([row["wnid"] for row in unseen]), 5)
    hits = [row["wnid"] in {name for name, _ in names} for row, names in zip(unseen, found, strict=True)]
    assert np.mean(hits) == pytest.approx(rows["devise", "unseen", "unseen", "hit", 5]["value"])
