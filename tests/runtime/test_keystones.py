"""The keystones: the parameter server computes what one process computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import ClusterOptions, Job, Trained
from psdevise.server.ledger import Ledger
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask
from psdevise.worker.task import batches
from tests import toy

OPTIMIZER = OptimizerOptions(rate=0.1, initial_accumulator=0.1)


def job(folder: Path, build: Callable[[], ModuleTask] = toy.task, **changes: object) -> Job:
    base = Job(
        run="test",
        phase="toy",
        build=build,
        snapshots=str(folder / "snapshots"),
        incarnations=str(folder / "incarnations.json"),
        seed=5,
        phase_number=1,
        cluster=ClusterOptions(host="inprocess", num_workers=1, num_shards=1),
        downpour=DownpourOptions(staleness=0),
        optimizer=OPTIMIZER,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def train(job: Job) -> Trained:
    torch.set_num_threads(1)
    return InProcess().train(job, lambda event: None, threading.Event())


def single_process(workers: int, fused: bool) -> dict[str, np.ndarray]:
    """The same batches through torch.optim.Adagrad, without any of the server's code; with several
    workers, each step's batches are put together into one."""
    task = toy.task()
    module = task.module
    module.train()
    first = [p for n, p in module.named_parameters() if n.startswith("0.")]
    rest = [p for n, p in module.named_parameters() if not n.startswith("0.")]
    groups = [{"params": first, "lr": 0.05, "weight_decay": 1e-3}, {"params": rest, "lr": 0.1}]
    optimizer = torch.optim.Adagrad(groups, lr=0.1, initial_accumulator_value=0.1, eps=1e-10, fused=fused)
    ledger = Ledger(task.slices, task.epochs, 5, 60.0)
    streams: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    while (taken := ledger.lease(0, 0.0)) is not None:
        streams.append([batch for batch, _ in batches(task, (5, 1), taken)])
    while streams:
        running, streams = streams[:workers], streams[workers:]
        for parts in zip(*running, strict=True):
            x, y = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    return {n: p.detach().numpy() for n, p in module.named_parameters()}


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_one_worker_equals_fused_adagrad_bit_for_bit(tmp_path: Path, shards: int) -> None:
    cluster = ClusterOptions(host="inprocess", num_workers=1, num_shards=shards)
    trained = train(job(tmp_path, cluster=cluster))
    expected = single_process(1, fused=True)
    for name, value in expected.items():
        np.testing.assert_array_equal(trained.parameters[name], value)
    unfused = single_process(1, fused=False)
    for name, value in unfused.items():
        np.testing.assert_allclose(trained.parameters[name], value, rtol=0, atol=1e-6)
    assert trained.audit == {"finished": 2 * toy.ROWS, "repeated": 0, "refused": 0}


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_at_staleness_0_equal_one_process_on_the_joined_batch(tmp_path: Path, workers: int) -> None:
    cluster = ClusterOptions(host="inprocess", num_workers=workers, num_shards=2)
    trained = train(job(tmp_path, cluster=cluster))
    for name, value in single_process(workers, fused=True).items():
        np.testing.assert_allclose(trained.parameters[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "downpour",
    [
        DownpourOptions(overlap=True),
        DownpourOptions(overlap=False),
        DownpourOptions(n_fetch=4, n_push=4, local_step="adagrad"),
        DownpourOptions(n_fetch=3, n_push=2, local_step="sgd", local_rate=0.02),
        DownpourOptions(staleness=2),
        DownpourOptions(staleness=1, n_push=2),
        DownpourOptions(warm_start=10),
    ],
    ids=["overlapped", "plain", "n=4", "sgd", "bound 2", "bound 1", "warm"],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_form_of_downpour_learns_and_applies_all_examples(
    tmp_path: Path, downpour: DownpourOptions, workers: int
) -> None:
    cluster = ClusterOptions(host="inprocess", num_workers=workers, num_shards=2)
    trained = train(job(tmp_path, lambda: toy.task(epochs=6), downpour=downpour, cluster=cluster))
    assert trained.audit == {"finished": 6 * toy.ROWS, "repeated": 0, "refused": 0}
    model = toy.module()
    x, y = toy.data()
    before = torch.nn.functional.cross_entropy(model(x), y).item()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(trained.parameters[name]))
    assert torch.nn.functional.cross_entropy(model(x), y).item() < 0.75 * before


def test_batch_norm_statistics_are_averaged_and_returned(tmp_path: Path) -> None:
    cluster = ClusterOptions(host="inprocess", num_workers=2)
    trained = train(job(tmp_path, lambda: toy.task(batch_norm=True), cluster=cluster, downpour=DownpourOptions()))
    assert np.abs(trained.parameters["1.running_mean"]).max() > 0
    assert np.isfinite(trained.parameters["1.running_var"]).all()


def test_a_stopped_run_goes_on_and_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Staleness 0: interrupted and resumed equals undisturbed, bit for bit, also at another shard count."""
    whole = train(job(tmp_path / "whole"))
    interrupt = threading.Event()
    steps = 0

    def after_some_steps(event: object) -> None:
        nonlocal steps
        steps += 1
        interrupt.set()

    stopped = job(tmp_path / "stopped")
    from psdevise.errors import Interrupted

    with pytest.raises(Interrupted):
        InProcess().train(stopped, after_some_steps, interrupt)
    more_shards = replace(stopped, cluster=replace(stopped.cluster, num_shards=3))
    resumed = train(more_shards)
    for name, value in whole.parameters.items():
        np.testing.assert_array_equal(resumed.parameters[name], value)
    assert resumed.audit["finished"] == 2 * toy.ROWS
