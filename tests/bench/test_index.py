"""The search benchmark: what it counts, and what it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from psdevise.bench import index as bench
from psdevise.bench.lexicon import asked, drawn, profile
from psdevise.bench.table import Context, Row
from psdevise.index import Index
from psdevise.labels.vectors import WordVectors, save_parquet


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZES": (300, 2000), "QUERIES": 40, "BATCH": 8, "ROUNDS": 2, "TURN_SECONDS": 0.01}.items():
        monkeypatch.setattr(bench, name, value)


def value(rows: list[Row], case: str, system: str, metric: str) -> float:
    return next(r.value for r in rows if (r.case, r.system, r.metric) == (case, system, metric))


def test_every_system_has_recall_speed_build_and_memory(small: None, tmp_path: Path) -> None:
    save_parquet(WordVectors(tuple(map(str, range(500))), 3 * drawn(500, 24, 1)), str(tmp_path / "words.parquet"))
    said: list[str] = []
    rows = bench.run(
        Context(text=str(tmp_path / "words.parquet"), on_progress=lambda done, of, what: said.append(what))
    )
    trained, large = "300 trained labels, 24d", "2,000 drawn labels, 24d"
    for case, systems in ((trained, bench.SYSTEMS), (large, (*bench.SYSTEMS, "lsh"))):
        for system in systems:
            assert 0 < value(rows, case, system, "recall_at_20") <= 1
            for metric in ("queries_per_second", "batch_queries_per_second", "build"):
                assert value(rows, case, system, metric) > 0
        assert value(rows, case, "exact", "recall_at_20") == value(rows, case, bench.FLAT, "recall_at_20") == 1
    assert not [r for r in rows if r.case == trained and r.system == "lsh"]
    assert all(r.errors == 0 for r in rows)
    assert {f"{trained}: building hnsw", f"{large}: batch_queries_per_second"} <= set(said)


def test_a_wrong_score_is_an_error(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Index.search

    def wrong(self: Index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = right(self, queries, k)
        return (scores + 0.01 if self.options.method == "exact" else scores), rows

    monkeypatch.setattr(Index, "search", wrong)
    rows = bench.run(Context())
    assert {r.system for r in rows if r.errors} == {"exact"}


def test_what_is_drawn_lies_as_trained_words_do() -> None:
    """The figures of 69,841 trained vectors that the module names, each within .05; Gaussians have none of this."""
    vectors = drawn(69_841, 200, 0)
    np.testing.assert_allclose(np.linalg.norm(vectors[:99], axis=1), 1, atol=1e-5)
    found = profile(vectors, 0, (1, 20, 1000, 5000, 20_000))
    for (rank, cosine), trained in zip(found.items(), (0.763, 0.688, 0.553, 0.443, 0.305), strict=True):
        assert cosine == pytest.approx(trained, abs=0.05), rank
    gauss = np.random.default_rng(0).standard_normal((20_000, 200), dtype=np.float32)
    gauss /= np.linalg.norm(gauss, axis=1, keepdims=True)
    assert profile(gauss, 0)[1] < 0.4
    np.testing.assert_array_equal(drawn(300, 8, 5), drawn(300, 8, 5))


def test_queries_have_their_cosine() -> None:
    vectors = drawn(3000, 50, 0)
    queries = asked(vectors, 64, 0.27, 0)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    labels = vectors[np.random.default_rng([0, 23]).integers(0, 3000, 64)]
    np.testing.assert_allclose((queries * labels).sum(axis=1), 0.27, atol=1e-5)
