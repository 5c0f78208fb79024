"""Cutting text into words. One tokeniser, named in the vocabulary, cuts corpus and labels alike."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from psdevise.errors import ConfigError

Tokenizer = Callable[[str], list[str]]
DEFAULT = "psdevise.data.tokenizer:words"
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """Lower-case runs of Unicode letters and digits; an apostrophe inside a word stays in it."""
    return _WORD.findall(text.lower())


def load(name: str) -> Tokenizer:
    """The tokeniser at `module:function`.

    Raises:
        ConfigError: there is no such function.
    """
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"no tokeniser {name!r}: {e}", where="tokenizer", mend="give module:function") from e
    if not colon or not callable(found):
        raise ConfigError(f"{name!r} is not a function", where="tokenizer", mend="give module:function")
    return found  # type: ignore[no-any-return]
