"""The kinds of the drawn world: names, a tree, and five latent traits each.

Parents are as unlike in their traits as can be; a kind has its parent's traits but for one, and is of a
build of its own that no trait tells of (which is what tells siblings apart in pictures).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

TRAITS = ("habitat", "motion", "use", "diet", "company")
VALUES = 6
KINDS_PER_PARENT = 4
PARENTS_PER_REALM = 4


@dataclass(frozen=True)
class Kind:
    """`traits`: a value 0 … 5 for each of TRAITS. `build`: the kind's own proportions, four numbers in ±1."""

    name: str
    node: str
    parent: str
    realm: str
    traits: tuple[int, ...]
    build: tuple[float, float, float, float]
    unseen: bool
    tune: bool


def kinds(parents: int, rng: np.random.Generator, taken: Collection[str]) -> list[Kind]:
    """Four kinds of each parent; the last of each is unseen, and the second of every other one calibrates.

    `taken`: words that no name may hold, because the text uses them in their own sense.
    """
    names = _names(parents * KINDS_PER_PARENT, rng, taken)
    found = []
    for p, profile in enumerate(_profiles(parents, rng)):
        changed = rng.permutation(len(TRAITS))
        for i in range(KINDS_PER_PARENT):
            traits = list(profile)
            if i > 0:  # the first kind is the parent's type itself
                trait = int(changed[i - 1])
                traits[trait] = int((traits[trait] + rng.integers(1, VALUES)) % VALUES)
            build = tuple(float(v) for v in rng.uniform(-1, 1, 4))
            found.append(
                Kind(
                    name=names[p * KINDS_PER_PARENT + i],
                    node=f"w3{p:02d}{i}",
                    parent=f"w20{p:02d}",
                    realm=f"w100{p // PARENTS_PER_REALM}",
                    traits=tuple(traits),
                    build=build,  # type: ignore[arg-type]
                    unseen=i == KINDS_PER_PARENT - 1,
                    tune=i == 1 and p % 2 == 0,
                )
            )
    return found


def _profiles(parents: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Trait profiles that share as few values as possible: each is the least alike of 200 drawn ones."""
    chosen: list[tuple[int, ...]] = []
    for _ in range(parents):
        drawn = rng.integers(0, VALUES, (200, len(TRAITS)))
        if chosen:
            shared = (drawn[:, None, :] == np.array(chosen)[None]).sum(axis=2)
            best = np.lexsort((shared.sum(axis=1), shared.max(axis=1)))[0]
        else:
            best = 0
        chosen.append(tuple(int(v) for v in drawn[best]))
    return chosen


def _names(n: int, rng: np.random.Generator, taken: Collection[str]) -> list[str]:
    """Invented words; every seventh kind has a name of two words."""
    heads, vowels, tails = (
        ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"],
        ["a", "e", "i", "o", "u"],
        ["k", "l", "m", "n", "r", "s", "t", "x"],
    )
    words: list[str] = []
    while len(words) < 2 * n:
        parts = [rng.choice(heads) + rng.choice(vowels) for _ in range(2)]
        word = "".join(parts) + str(rng.choice(tails))
        if word not in words and word not in taken:
            words.append(word)
    return [f"{words[i]} {words[n + i]}" if i % 7 == 3 else words[i] for i in range(n)]
