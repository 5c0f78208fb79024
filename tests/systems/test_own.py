"""A user's own system: found, checked, and its mistakes told as the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psdevise.errors import ConfigError, LabelError
from psdevise.systems.own import load_recipe
from psdevise.systems.recipe import fingerprint
from tests.systems.lessons import SEEN, known, lesson, pictures


class Means:
    name, variant, needs = "means", "default", ()

    def fit(self, lesson: Any) -> Any:
        return {"mean": np.stack([lesson.values[lesson.targets == i].mean(axis=0) for i in range(len(lesson.seen))])}

    def score(self, learned: Any, known: Any, values: Any, labels: Any) -> Any:
        return values.astype(np.float64) @ learned["mean"].T


class Raises(Means):
    def fit(self, lesson: Any) -> Any:
        raise ValueError("my own mistake")

    def score(self, learned: Any, known: Any, values: Any, labels: Any) -> Any:
        return known.matrix(["unheard of"])


class NoArrays(Means):
    def fit(self, lesson: Any) -> Any:
        return {"mean": [1.0, 2.0]}

    def score(self, learned: Any, known: Any, values: Any, labels: Any) -> Any:
        return [[0.0] * len(labels)] * len(values)


class Transposed(Means):
    def score(self, learned: Any, known: Any, values: Any, labels: Any) -> Any:
        return super().score(learned, known, values, labels).T


class NotANumber(Means):
    def score(self, learned: Any, known: Any, values: Any, labels: Any) -> Any:
        found = super().score(learned, known, values, labels)
        found[3, 2] = np.nan
        return found


def test_what_works_is_passed_on(tmp_path: Path) -> None:
    own = load_recipe("tests.systems.test_own:Means")
    assert (own.name, own.variant, own.needs) == ("means", "default", ())
    learned = own.fit(lesson(tmp_path))
    scores = own.score(learned, known(), pictures(list(SEEN), 4), SEEN)
    assert scores.dtype == np.float32
    assert scores.argmax(axis=1).tolist() == list(range(len(SEEN)))
    assert fingerprint(own) == fingerprint(Means())
    assert fingerprint(own) != fingerprint(Raises())


def test_it_must_be_there_and_whole() -> None:
    assert load_recipe("psdevise.systems.devise:Ridge").name == "l2"
    for wrong, text in (
        ("nowhere:At", "nowhere"),
        ("psdevise.systems:Nothing", "Nothing"),
        ("builtins:dict", "has no"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_recipe(wrong)


def test_a_file_that_cannot_be_loaded_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_with_a_typo.py").write_text("\ndef f(:\n")
    (tmp_path / "own_that_raises.py").write_text("class A:\n    def __init__(self):\n        raise ValueError('no')\n")
    with pytest.raises(ConfigError, match=r"'own_with_a_typo:f' raised SyntaxError.*own_with_a_typo\.py:2"):
        load_recipe("own_with_a_typo:f")
    with pytest.raises(ConfigError, match=r"'own_that_raises:A' raised ValueError: no .*own_that_raises\.py:3"):
        load_recipe("own_that_raises:A")


def test_a_fit_that_fails_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test_own:Raises: fit raised ValueError: my own mistake .*test_own.py:\d+"):
        load_recipe("tests.systems.test_own:Raises").fit(lesson(tmp_path))
    with pytest.raises(ConfigError, match="fit returned dict, expected a dict of numpy arrays"):
        load_recipe("tests.systems.test_own:NoArrays").fit(lesson(tmp_path))


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("NoArrays", r"score returned list, expected float32 \(6, 6\)"),
        ("Transposed", r"score returned float64 \(6, 7\), expected float32 \(7, 6\)"),
        ("NotANumber", "NaN"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(system: str, text: str) -> None:
    own = load_recipe(f"tests.systems.test_own:{system}")
    values = pictures(list(SEEN), 4) if system == "NoArrays" else pictures([*SEEN, "ant"], 4)
    learned = {"mean": pictures(list(SEEN), 5)}
    with pytest.raises(ConfigError, match=text):
        own.score(learned, known(), values, SEEN)


def test_psdevises_own_errors_pass_as_they_are() -> None:
    own = load_recipe("tests.systems.test_own:Raises")
    with pytest.raises(LabelError, match="unheard of"):
        own.score({}, known(), pictures(list(SEEN), 4), SEEN)
