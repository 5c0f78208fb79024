"""CIFAR-100's class splits, and the classes that stand for unseen ones while something is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from psdevise import store
from psdevise.errors import ConfigError
from psdevise.labels.space import LabelSpace, read_list
from psdevise.labels.split import Split

TUNING_CLASSES = 10


def home(data: str) -> str:
    return store.join(data, "cifar100")


def class_splits(folder: str, kinds: Sequence[str], count: int) -> list[Split]:
    """The first `count` of each kind of `splits.json`, named KIND_NUMBER.

    Raises:
        ConfigError: there is no such kind.
    """
    names = LabelSpace.read(store.join(folder, "wordnet.tsv")).names
    listed = store.read_json(store.join(folder, "splits.json"))
    found = []
    for kind in kinds:
        if kind not in listed:
            raise ConfigError(f"no kind of splits {kind!r}", where="kind", mend=f"one of {', '.join(listed)}")
        for number, unseen in enumerate(listed[kind][:count]):
            seen = tuple(c for c in names if c not in set(unseen))
            found.append(Split(f"{kind}_{number}", seen, tuple(c for c in names if c in set(unseen))))
    return found


def number_of(split: Split) -> int:
    return int(split.name.rsplit("_", 1)[1])


def tuning_classes(folder: str, split: Split, seed: int) -> tuple[str, ...]:
    """`tune_10.txt` for the split that it was made for, else ten drawn from the seen ones."""
    given = read_list(store.join(folder, "tune_10.txt"))
    unseen = set(read_list(store.join(folder, "unseen_20.txt")))
    if unseen == set(split.unseen):
        return tuple(given)
    drawn = np.random.default_rng([seed, 43, number_of(split)]).choice(
        len(split.seen), min(TUNING_CLASSES, len(split.seen) // 3), replace=False
    )
    return tuple(split.seen[i] for i in sorted(drawn))
