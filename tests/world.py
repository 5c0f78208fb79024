"""A tiny run of the drawn world that trains in seconds, in this process or on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psdevise import config
from psdevise.orchestrator.options import RunOptions

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "world": {"parents": 4, "train_pictures": 30, "test_pictures": 6, "sentences": 80},
        "images": {"processes": 1},
    },
    "vocabulary": {"processes": 1},
    "language": {
        "slices": 20,
        "epochs": 2,
        "block_words": 1000,
        "skipgram": {"dim": 24, "window": 5, "sample": 0},
    },
    "visual": {
        "core": {"arguments": {"width": 8}, "size": 16},
        "epochs": 3,
        "slices": 20,
        "feed": {"batch": 32},
        "optimizer": {"rate": 0.01, "initial_accumulator": 1e-6},
    },
    "joint": {
        "projection": {
            "epochs": 3,
            "slices": 20,
            "batch": 32,
            "optimizer": {"rate": 0.05, "initial_accumulator": 0.01},
        },
        "fine_tuning": {"epochs": 1, "slices": 20, "feed": {"batch": 32}, "optimizer": {"rate": 0.001}},
    },
    "evaluate": {"pictures_on_sheet": 4},
    "cluster": {"host": "inprocess", "num_workers": 2, "num_shards": 2},
    "monitor": {"port": None},
}

PHASES = [
    "world",
    "images",
    "vocabulary",
    "language",
    "visual",
    "labels",
    "features",
    "joint-devise",
    "joint-random",
    "index",
    "evaluate",
]


def tiny(folder: Path, *overrides: str) -> RunOptions:
    return config.build(RunOptions, config.override(TINY, (f"folder={folder}", *overrides)))
