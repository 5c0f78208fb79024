"""What a run can train beside DeViSE, by the name that its configuration gives."""

from __future__ import annotations

from collections.abc import Callable

from psdevise.errors import ConfigError
from psdevise.systems.chollet import Chollet, Logistic
from psdevise.systems.cosine import CosineSoftmax
from psdevise.systems.linear import ConSE
from psdevise.systems.own import is_own, load_recipe
from psdevise.systems.recipe import Recipe
from psdevise.systems.socher import Socher
from psdevise.systems.wsabie import Wsabie

JOINT = ("random", "l2")
"""Trained as DeViSE is, by the joint phase; `softmax` is the visual phase itself."""
RECIPES: dict[str, Callable[[], Recipe]] = {
    "wsabie": Wsabie,
    "conse": ConSE,
    "cosine": CosineSoftmax,
    "socher": Socher,
    "chollet": Chollet,
    "logistic": Logistic,
}
"""Trained on the finished core's outputs."""
WORDLESS = ("softmax", "wsabie", "chollet", "logistic")
"""They compare no word vectors."""


def recipe(name: str) -> Recipe:
    """
    Raises:
        ConfigError: a system of the user's own that cannot be had.
    """
    return load_recipe(name) if is_own(name) else RECIPES[name]()


def check(names: tuple[str, ...]) -> None:
    """
    Raises:
        ConfigError: a name that is neither a baseline nor `module:name`, or one that stands there twice.
    """
    known = ("softmax", *JOINT, *RECIPES)
    for name in names:
        if name not in known and not is_own(name):
            raise ConfigError(f"no baseline {name!r}", where="baselines", mend=f"{', '.join(known)}, or module:name")
    called = [load_recipe(name).name if is_own(name) else name for name in ("devise", *names)]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise ConfigError(f"two systems are {twice[0]!r}", where="baselines")


def on_core(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are trained on the core's outputs."""
    return tuple(name for name in names if name in RECIPES or is_own(name))
