"""A synthetic run folder: every figure is made up, every file is of the real form."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from psdevise.events import (
    Event,
    Notice,
    PhaseFinished,
    PhaseStarted,
    Progress,
    Restarted,
    RunFinished,
    RunStarted,
    SnapshotWritten,
    Validated,
    WorkerFigures,
    to_plain,
)

PHASES = ("vocabulary", "language", "visual", "joint-devise", "evaluate")
PARENTS = ("fish", "bird", "boat", "tree", "cup", "car")
LABELS = [f"{parent} {kind}" for parent in PARENTS for kind in ("red", "blue", "green", "grey")]
SEEN = [not label.endswith("grey") for label in LABELS]
START = 1_700_000_000.0
LAGS = {0: 10, 1: 60, 2: 25, 7: 5}


def progress(phase: str, share: float, *, version: tuple[int, int] = (3, 100), scale: float = 1.0) -> Progress:
    figures = tuple(
        WorkerFigures(
            rank,
            int(1000 * share),
            {
                "examples": 64000.0 * share,
                "steps": 1000.0 * share,
                "compute_seconds": 50.0 * share,
                "wire_seconds": 9.0 * share,
                "read_seconds": 1.0 * share,
                "bytes_pulled": 4e8 * share,
                "bytes_pushed": 3e8 * share,
            }
            | ({"words": 2e6 * share} if phase == "language" else {}),
            {"lag": 1.0 + rank, "rate": 1 - share, "in_flight_bytes": 1024.0},
        )
        for rank in range(2)
    )
    lags = {str(lag): round(n * scale) for lag, n in LAGS.items()}
    shards = ({"version": list(version), "counts": {"applied": 100, "too_stale": 2}, "lags": lags},)
    return Progress(
        phase,
        share,
        count=128000 * share,
        rate=2100 + 100 * share,
        loss=3 - 2 * share,
        lag=1.5,
        workers=2,
        epoch=1,
        left=60 * (1 - share),
        bytes=7e8,
        figures=figures,
        shards=shards,
    )


def journal() -> Iterator[tuple[float, Event]]:
    """Two sessions: the first is stopped in the visual phase, the second goes on with it and ends."""
    yield 0, RunStarted("example", PHASES)
    yield 0, PhaseStarted("vocabulary", "words")
    yield 2, PhaseFinished("vocabulary", 2.0)
    yield 2, PhaseStarted("language", "words")
    for i in range(1, 11):
        yield 2 + i, progress("language", i / 10)
    bill = {"core_seconds": 3600.0, "gpu_seconds": 0.0, "bytes": 2e9, "peak_bytes_worker": 5e8}
    yield 12, PhaseFinished("language", 10.0, bill=bill | {"compute_seconds": 8.0, "wire_seconds": 2.0})
    yield 12, PhaseStarted("visual", "examples")
    for i in range(1, 6):
        yield 12 + i, progress("visual", i / 10)
    yield 17, SnapshotWritten("visual", 1, 0.2)
    # A day later.
    yield 86400, RunStarted("example", PHASES)
    for phase in ("vocabulary", "language"):
        yield 86400, PhaseStarted(phase, "words")
        yield 86400, PhaseFinished(phase, 0.0, reused=True)
    yield 86400, PhaseStarted("visual", "examples")
    for i in range(5, 11):
        yield 86400 + i, progress("visual", i / 10, version=(5, 200))
    yield 86410, Restarted("visual", "worker", 1, 6, "out of memory <oom>", 5300)
    yield 86411, Validated("visual", "hit@1, validation", 0.5)
    gpu = {"core_seconds": 7200.0, "gpu_seconds": 1800.0, "bytes": 5e9}
    yield 86412, PhaseFinished("visual", 12.0, bill=gpu | {"peak_bytes_worker": 2e9, "peak_bytes_shard": 1e9})
    yield 86412, PhaseStarted("joint-devise", "examples")
    yield 86412, Notice("joint-devise", "fetch and push take 2.0 x the time of computing")
    for part in range(2):  # projection, fine-tuning
        for i in range(1, 6):
            yield 86412 + 5 * part + i, progress("joint-devise", i / 5, version=(7 + part, 9), scale=0.5)
    yield 86422, PhaseFinished("joint-devise", 10.0)
    yield 86422, PhaseStarted("evaluate", "pictures")
    yield 86430, PhaseFinished("evaluate", 8.0)
    yield 86430, RunFinished("example", 30.0)


def results() -> list[dict[str, Any]]:
    rows = []

    def row(system: str, images: str, candidates: str, metric: str, k: int | None, value: float | None) -> None:
        known = value is not None and metric != "harmonic"
        rows.append(
            {
                "system": system,
                "variant": "default",
                "dataset": "made up",
                "split": "one of four",
                "seed": 0,
                "images": images,
                "candidates": candidates,
                "metric": metric,
                "k": k,
                "value": value,
                "low": value - 0.02 if known and value is not None else None,
                "high": value + 0.02 if known and value is not None else None,
                "chance": None if metric == "harmonic" else 0.04 * (k or 1),
                "ceiling": 1.0,
                "n": 240,
            }
        )

    for system, quality in (("devise", 0.44), ("softmax", 0.48), ("random", 0.31)):
        for images, candidates, part in (
            ("seen", "seen", 1.0),
            ("unseen", "unseen", 0.7),
            ("unseen", "seen+unseen", 0.4),
        ):
            can = system != "softmax" or candidates == "seen"
            for k in (1, 5):
                row(system, images, candidates, "hit", k, min(0.97, quality * part * k**0.4) if can else None)
            row(system, images, candidates, "class_mean_hit", 1, quality * part if can else None)
            for k in (1, 5):
                row(system, images, candidates, "hp", k, quality * part if can else 0.0)
        row(system, "seen+unseen", "seen+unseen", "harmonic", 1, quality / 2 if system != "softmax" else None)
    return rows


def picture(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def evaluation(folder: Path, labels: list[str], pictures: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    parents = rng.normal(size=(len(PARENTS), 16))
    vectors = np.repeat(parents, 4, axis=0) + 0.4 * rng.normal(size=(len(labels), 16))
    of = np.arange(pictures) % len(labels)
    embeddings = vectors[of] + 0.5 * rng.normal(size=(pictures, 16))
    tensors = {"label_vectors": vectors.astype(np.float32), "image_embeddings": embeddings.astype(np.float32)}
    (folder / "map.safetensors").write_bytes(save(tensors))
    about = {
        "labels": labels,
        "seen": SEEN,
        "parent": [p for p in PARENTS for _ in range(4)],
        "image_labels": [labels[i] for i in of],
        "image_seen": [SEEN[i] for i in of],
    }
    samples = []
    for i in range(0, len(labels), 3):
        best = [[labels[(i + j) % len(labels)], 0.9 - j / 10] for j in range(5)]
        samples.append(
            {
                "id": f"p{i}",
                "label": labels[i],
                "seen": SEEN[i],
                "image": picture(i),
                "devise": best,
                "softmax": best[::-1],
            }
        )
    doctor = {
        "rows": [
            {"label": label, "how": "exact phrase", "term": label, "count": 9 + i} for i, label in enumerate(labels)
        ],
        "summary": {"exact phrase": len(labels)},
    }
    curve = {
        name: [[1 - i / 10, height * i / 10] for i in range(11)] for name, height in (("devise", 0.6), ("random", 0.3))
    }
    compared = [
        {"against": "random", "images": "unseen", "candidates": "unseen", "metric": "hit", "k": 1}
        | {"value": 0.1, "low": 0.05, "high": 0.15}
    ]
    parts = {"map": about, "samples": samples, "doctor": doctor, "curve": curve, "comparisons": compared}
    for name, value in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def run_folder(folder: Path, labels: list[str] = LABELS, pictures: int = 60) -> Path:
    """`folder`, filled as a finished run leaves it."""
    artifact = folder / "artifacts" / "evaluate-0123456789abcdef"
    evaluation(artifact, labels, pictures)
    about = {
        "format": 1,
        "name": "example",
        "started": START,
        "seed": 0,
        "config": {"name": "example", "joint": {"margin": 0.1}},
        "versions": {"torch": "2.9", "psdevise": "0.1.0"},
        "devices": {"cpus": 2, "cpu_model": "synthetic", "gpus": ["a GPU"]},
    }
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "results.json").write_text(json.dumps(results()))
    (folder / "evaluate.json").write_text(json.dumps({"folder": str(artifact)}))
    lines = [json.dumps({"time": START + at, **to_plain(event)}) for at, event in journal()]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return folder
