"""The language phase in one process: what goes through the shards is what one replica would have learned."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psdevise.data import corpus
from psdevise.errors import ConfigError, Interrupted
from psdevise.events import Event, Progress, Restarted
from psdevise.models.skipgram import SkipGram, SkipGramOptions
from psdevise.phases.language import BuildLanguage, LanguageOptions, LanguageTask, grown, word_vectors
from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import ClusterOptions, Job, Trained
from psdevise.runtime.reader import batches
from psdevise.server.ledger import Ledger
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.task import generator

TERMS, SENTENCES = 300, 240
SKIPGRAM = SkipGramOptions(dim=8, window=3, sample=0.0)
SGD = replace(SKIPGRAM, step="sgd")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, tuple[int, ...]]:
    """A corpus of pairs (2i, 2i + 1) that stand together, and its counts."""
    rng = np.random.default_rng(0)
    path = str(tmp_path_factory.mktemp("text") / "corpus")
    sentences = []
    for _ in range(SENTENCES):
        i = 2 * int(rng.integers(TERMS // 2) * rng.random())
        sentences.append(np.array([i, i + 1] * 6, np.int32))
    corpus.write(path, [sentences])
    counts = np.bincount(np.concatenate(sentences), minlength=TERMS) + 1
    return path, tuple(int(n) for n in counts)


def job(folder: Path, text: tuple[str, tuple[int, ...]], options: LanguageOptions, **cluster: int) -> Job:
    return Job(
        run="test",
        phase="language",
        build=BuildLanguage(*text, options, seed=3),
        snapshots=str(folder / "snapshots"),
        incarnations=str(folder / "incarnations.json"),
        seed=3,
        phase_number=1,
        cluster=ClusterOptions(**({"host": "inprocess", "num_workers": 1} | cluster)),  # type: ignore[arg-type]
        downpour=options.downpour,
        optimizer=options.optimizer,
        unit="words",
    )


def train(job: Job) -> Trained:
    return InProcess().train(job, lambda event: None, threading.Event())


def options(skipgram: SkipGramOptions = SKIPGRAM, **changes: object) -> LanguageOptions:
    return LanguageOptions(skipgram=skipgram, epochs=2, block_words=100, slices=12, **changes)  # type: ignore[arg-type]


def by_one_replica(task: LanguageTask, seed: int, rate: float) -> dict[str, np.ndarray]:
    """The same blocks in the same order on plain tables, without shards."""
    tables = {name: values.copy() for name, values in task.initial().items()}
    ledger = Ledger(task.slices, task.epochs, seed, 60.0)
    while (taken := ledger.lease(0, 0.0)) is not None:
        for block, _ in batches(task, (seed, 1), taken):
            task.model.train(tables, block, rate)
        ledger.finish(0, taken, 0)
    return tables


@pytest.mark.parametrize("step", ["adagrad", "sgd"])
@pytest.mark.parametrize("shards", [1, 3])
def test_one_worker_learns_what_one_replica_would(
    tmp_path: Path, text: tuple[str, tuple[int, ...]], step: str, shards: int
) -> None:
    chosen = options(replace(SKIPGRAM, step=step), rate=0.05)  # type: ignore[arg-type]
    trained = train(job(tmp_path, text, chosen, num_shards=shards))
    assert trained.audit == {"finished": 2 * SENTENCES, "repeated": 0, "refused": 0}
    assert trained.bill["units"] == 2 * SENTENCES * 12
    expected = by_one_replica(BuildLanguage(*text, chosen, 3)(), 3, 0.05)
    assert set(expected) == set(trained.parameters)
    for name, values in expected.items():
        # before − after is rounded, and so is p − (before − after)
        np.testing.assert_allclose(trained.parameters[name], values, rtol=1e-5, atol=1e-5)
        assert np.abs(values).max() > 0.1


def test_only_the_rows_of_a_block_travel(tmp_path: Path, text: tuple[str, tuple[int, ...]]) -> None:
    chosen = options()
    task = BuildLanguage(*text, chosen, 3)()
    blocks = list(task.read(*task.slices[0], generator(0)))
    for block in blocks:
        rows = task.rows(block)
        assert rows["input"].tolist() == sorted(set(block.terms.tolist()))
        assert rows["inner"].tolist() == sorted(
            {n for s, k in zip(block.starts, block.lengths, strict=True) for n in block.targets[s : s + k].tolist()}
        )
        assert all(len(ids) < TERMS // 2 for ids in rows.values())
    trained = train(job(tmp_path, text, chosen))
    one_way = sum(
        4 * sum(len(ids) * task.model.tables[name][1] for name, ids in task.rows(b).items())
        for start, stop in task.slices
        for b in task.read(start, stop, generator(0))
    )
    pushed_ids = one_way  # without sub-sampling the rows are the same in both passes
    assert trained.bill["bytes"] >= 2 * 2 * pushed_ids


@pytest.mark.parametrize(
    "chosen",
    [
        options(),
        options(replace(SKIPGRAM, objective="negative_sampling")),
        options(SGD, rate=0.1, schedule="linear"),
        options(SGD, rate=0.1, optimizer=OptimizerOptions(table_rule="adagrad", rate=0.5, initial_accumulator=0.1)),
        options(SGD, rate=0.1, optimizer=OptimizerOptions(table_rule="adagrad_row", rate=0.1, initial_accumulator=1)),
    ],
    ids=["default", "negative", "sgd", "adagrad", "adagrad_row"],
)
def test_every_rule_with_three_workers_puts_pairs_together(
    tmp_path: Path, text: tuple[str, tuple[int, ...]], chosen: LanguageOptions
) -> None:
    chosen = replace(chosen, epochs=6)
    trained = train(job(tmp_path, text, chosen, num_workers=3, num_shards=2))
    assert trained.audit == {"finished": 6 * SENTENCES, "repeated": 0, "refused": 0}
    vectors = word_vectors(tuple(map(str, range(TERMS))), text[1], trained.parameters)
    frequent = [i for i in range(0, TERMS, 2) if text[1][i] > 20]
    together = [i for i in frequent if str(i + 1) in [t for t, _ in vectors.neighbours(vectors.vector(str(i)), 4)]]
    assert len(together) > 0.5 * len(frequent) > 5


def test_the_share_of_rows_whose_accumulator_more_than_doubled(
    tmp_path: Path, text: tuple[str, tuple[int, ...]]
) -> None:
    trained = train(job(tmp_path / "own", text, options()))
    touched = (np.array(text[1]) > 1).mean()
    assert grown(trained.parameters, OptimizerOptions())["input"] == pytest.approx(touched)
    for initial, (low, high) in {1e-3: (0.3, 1.0), 1e6: (0.0, 0.0)}.items():
        rule = OptimizerOptions(table_rule="adagrad", initial_accumulator=initial)
        trained = train(job(tmp_path / str(initial), text, options(SGD, rate=0.1, optimizer=rule)))
        assert set(grown(trained.parameters, rule)) == {"input", "inner"}
        assert low <= grown(trained.parameters, rule)["input"] <= high
    assert grown(train(job(tmp_path / "sgd", text, options(SGD))).parameters, OptimizerOptions()) == {}


def test_adagrad_upon_adagrad_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"table_rule: .*'adagrad_row'"):
        options(optimizer=OptimizerOptions(table_rule="adagrad_row"))


def test_stopped_in_mid_pass_no_text_is_lost(tmp_path: Path, text: tuple[str, tuple[int, ...]]) -> None:
    chosen = options()
    whole = train(job(tmp_path / "whole", text, chosen))
    stopped = job(tmp_path / "stopped", text, chosen)
    interrupt = threading.Event()
    with pytest.raises(Interrupted):
        InProcess().train(stopped, lambda event: interrupt.set(), interrupt)
    resumed = train(replace(stopped, cluster=replace(stopped.cluster, num_shards=2)))
    assert resumed.audit["finished"] == 2 * SENTENCES
    for name, values in whole.parameters.items():
        np.testing.assert_allclose(resumed.parameters[name], values, rtol=1e-5, atol=1e-5)


def test_a_repeated_slice_is_the_same_slice(text: tuple[str, tuple[int, ...]]) -> None:
    task = BuildLanguage(*text, options(replace(SKIPGRAM, sample=1e-3)), 3)()
    first, again = (list(task.read(*task.slices[2], generator(3, 1, 0, 2, 0))) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.terms, b.terms)
        np.testing.assert_array_equal(a.low, b.low)
    assert isinstance(task.model, SkipGram)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_on_ray_a_killed_worker_and_a_stop_in_mid_pass_lose_no_text(
    tmp_path: Path, text: tuple[str, tuple[int, ...]]
) -> None:
    """One worker is killed, then the run is stopped, then resumed with other numbers."""
    from psdevise.runtime.training import OnRay

    chosen = replace(options(), epochs=40, slices=20)
    begun = job(tmp_path, text, chosen)
    begun = replace(begun, cluster=ClusterOptions(num_workers=2, num_shards=2, snapshot_seconds=0.5, lease_seconds=10))
    interrupt = threading.Event()
    restarts: list[Restarted] = []
    killed: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Restarted):
            restarts.append(event)
        if isinstance(event, Progress) and event.figures and event.done > 0.02:
            pid = next((f.gauges["pid"] for f in event.figures if "pid" in f.gauges), 0.0)
            if not killed and pid:
                killed.append(int(pid))
                os.kill(int(pid), signal.SIGKILL)
            elif restarts:
                interrupt.set()

    with pytest.raises(Interrupted):
        OnRay().train(begun, on_event, interrupt)
    assert [event.role for event in restarts] == ["worker"]
    other = replace(begun, cluster=replace(begun.cluster, num_workers=3, num_shards=1))
    trained = OnRay().train(other, lambda event: None, threading.Event())
    assert trained.audit["finished"] == 40 * SENTENCES
    assert trained.audit["refused"] == 0
    assert all(np.isfinite(values).all() for values in trained.parameters.values())
