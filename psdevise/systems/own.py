"""A system of the user's own, by `module:name`: its mistakes are told as the user's, with their place."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from psdevise.errors import ConfigError, PsdeviseError
from psdevise.systems import Scores
from psdevise.systems.recipe import Known, Learned, Lesson, Recipe, Values

SEE = 'see docs/guide.md, "A system of your own"'


class Own:
    """A Recipe whose answers are checked before anything is computed with them.

    Attributes:
        own: the user's object.
    """

    def __init__(self, own: Recipe, called: str) -> None:
        self.own, self._called = own, called
        self.name, self.variant, self.needs = own.name, own.variant, tuple(own.needs)

    def fit(self, lesson: Lesson) -> Learned:
        """
        Raises:
            ConfigError: it raised, or returned something else than arrays by name.
        """
        learned = self._call(self.own.fit, lesson)
        if not isinstance(learned, dict) or not all(isinstance(v, np.ndarray) for v in learned.values()):
            raise self._wrong(f"fit returned {_about(learned)}, expected a dict of numpy arrays")
        return learned

    def score(self, learned: Learned, known: Known, values: Values, labels: Sequence[str]) -> Scores:
        """
        Raises:
            ConfigError: it raised, or did not return a number or −inf for each picture and label.
        """
        found = self._call(self.own.score, learned, known, values, labels)
        shape = (len(values), len(labels))
        if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype.kind not in "fiu":
            raise self._wrong(f"score returned {_about(found)}, expected float32 {shape}, pictures by labels")
        if np.isnan(found).any() or np.isposinf(found).any():
            raise self._wrong("score returned NaN or +inf; what it cannot name is -inf")
        return found.astype(np.float32, copy=False)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except PsdeviseError:
            raise
        except Exception as e:
            raise self._wrong(f"{function.__name__} raised {type(e).__name__}: {e} ({_place(e)})") from e

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(what, where=self._called, mend=SEE)


def is_own(name: str) -> bool:
    """Whether the name is one of a user's own system, `module:name`."""
    return ":" in name


def load_recipe(name: str) -> Own:
    """A system of the user's own, `module:name` of a class or function without arguments.

    Raises:
        ConfigError: there is no such module or name, it raised, or it lacks what a system has.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as e:
        raise ConfigError(f"{name!r}: {e}", where="system", mend="module:name, importable from here") from e
    except Exception as e:  # whatever the user's file does when it is read
        raise ConfigError(f"{name!r} raised {type(e).__name__}: {e} ({_place(e)})", where="system", mend=SEE) from e
    lacks = [part for part in ("name", "variant", "needs", "fit", "score") if not hasattr(found, part)]
    if lacks:
        raise ConfigError(f"{name!r} has no {', '.join(lacks)}", where="system", mend=SEE)
    return Own(found, name)


def _place(error: Exception) -> str:
    """`file:line` of where it came from; of a file that cannot be read as Python, in that file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{at.filename}:{at.lineno}"


def _about(found: object) -> str:
    if isinstance(found, np.ndarray):
        return f"{found.dtype} {found.shape}"
    return type(found).__name__
