"""`psdevise bench converge`: does Downpour learn what one process learns from as many examples?

Every run sees each training picture equally often, in batches of 64 and in an order drawn from its seed. A run's figure
is the loss on pictures held out; its ratio is to one process with the same seed. All runs have the same learning rate.
With n > 1 the workers step by themselves with the accumulators that come with the parameters (`local_step: adagrad`),
which needs no further rate.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from psdevise import store
from psdevise.bench import machine
from psdevise.bench.ours import Seen
from psdevise.bench.rounds import Rounds
from psdevise.bench.table import Context, Row
from psdevise.bench.tasks import Batch, cnn32, mlp
from psdevise.data.pictures import PictureTable, decode
from psdevise.errors import ConfigError
from psdevise.runtime.job import ClusterOptions, Host, Job
from psdevise.server.ledger import Ledger, cut
from psdevise.server.optimizer import OptimizerOptions
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.module import ModuleTask, of_mean
from psdevise.worker.task import batches

MODELS = {"cnn32": cnn32, "mlp": mlp}
BATCH, SLICES, SIZE = 64, 40, 32
REFERENCE = "one_process"
OPTIMIZER = OptimizerOptions(rate=0.01, initial_accumulator=0.001)


class Never:
    """A user who does not press Ctrl-C."""

    def is_set(self) -> bool:
        return False


@dataclass(frozen=True)
class Plan:
    """`train` and `held_out` pictures at most; so many epochs; the same for every run."""

    train: int = 10_240
    held_out: int = 2_048
    epochs: int = 3
    seeds: int = 5
    workers: tuple[int, ...] = (1, 2, 4)
    intervals: tuple[int, ...] = (1, 8)


def run(context: Context) -> list[Row]:
    """Rows of both models, for W = 1, 2, 4 and n = 1, 8. `--full`: all pictures, 5 epochs."""
    from psdevise.runtime.cluster import disconnect, start_local
    from psdevise.runtime.training import OnRay

    torch.set_num_threads(1)
    plan = Plan(train=40_960, held_out=8_192, epochs=5) if context.full else Plan()
    path = images_of(context)
    rows = machine.figures("converge")
    os.environ.setdefault("RAY_worker_niceness", "0")
    start_local(max(4, os.cpu_count() or 1))
    try:
        with tempfile.TemporaryDirectory(prefix="psdevise-bench-") as folder:
            context.on_progress(0, 1, "decoding the pictures")
            classes = prepare(path, plan, folder)
            total = len(MODELS) * plan.seeds * (1 + len(plan.workers) * len(plan.intervals))
            ended = 0

            def done(what: str) -> None:
                nonlocal ended
                ended += 1
                context.on_progress(ended, total, what)

            for model in MODELS:
                rows += measure(model, classes, plan, folder, OnRay(), context.seed, done)
    finally:
        disconnect()
    return rows


def measure(
    model: str,
    classes: int,
    plan: Plan,
    folder: str,
    host: Host,
    seed: int = 0,
    done: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Held-out losses of one model: a row per W and n, with the ratio to one process within each seed."""
    losses: dict[tuple[int, int], list[float]] = {}
    alone: list[float] = []
    errors: dict[tuple[int, int], int] = {}
    for number in range(seed, seed + plan.seeds):
        build = partial(make_task, model, classes, plan, folder, number)
        alone.append(held_out_loss(one_process(build(), number), build(), folder))
        done(f"{model}, one process")
        for workers in plan.workers:
            for n in plan.intervals:
                trained, wrong = train(build, plan, workers, n, number, folder, host)
                losses.setdefault((workers, n), []).append(held_out_loss(trained, build(), folder))
                errors[workers, n] = errors.get((workers, n), 0) + wrong
                done(f"{model} W={workers} n={n}")
    rows = []
    for (workers, n), found in losses.items():
        rounds = Rounds({"psdevise": found, REFERENCE: alone}, {"psdevise": errors[workers, n]})
        rows += rounds.rows("converge", f"{model} W={workers} n={n}", "held_out_loss", "nats", REFERENCE)
    return rows


def images_of(context: Context) -> str:
    """--images, or CIFAR-100's training pictures where PSDEVISE_DATA has them.

    Raises:
        ConfigError: there are no pictures.
    """
    default = os.path.join(os.environ.get("PSDEVISE_DATA", "../shared/data"), "cifar100", "train.parquet")
    path = context.images or default
    if not store.exists(path):
        raise ConfigError(f"no pictures at {path}", where="--images", mend="give a Parquet file of labelled pictures")
    return path


def prepare(path: str, plan: Plan, folder: str) -> int:
    """Decodes the pictures into arrays that all processes map: uint8 [n, 3, 32, 32] and int64 [n]; the number of
    classes. Which are held out is drawn once, for all runs."""
    table = PictureTable(path)
    labels = [row[0] for row in table.labels()]
    index = {label: i for i, label in enumerate(sorted(set(labels)))}
    chosen = np.random.default_rng(0).permutation(table.rows)
    held_out = chosen[: min(plan.held_out, table.rows // 5)]
    train = chosen[len(held_out) :][: plan.train]
    pixels: dict[int, np.ndarray] = {}  # type: ignore[type-arg]
    wanted = set(held_out.tolist()) | set(train.tolist())
    for start in range(0, table.rows, 1000):
        stop = min(start + 1000, table.rows)
        if wanted.isdisjoint(range(start, stop)):
            continue
        pixels |= {p.row: decode(p.data, SIZE) for p in table.read(start, stop) if p.row in wanted}
    for name, rows in (("train", train), ("held_out", held_out)):
        np.save(_file(folder, name, "x"), np.stack([pixels[int(r)] for r in rows]).transpose(0, 3, 1, 2))
        np.save(_file(folder, name, "y"), np.array([index[labels[r]] for r in rows], np.int64))
    return len(index)


def make_task(model: str, classes: int, plan: Plan, folder: str, seed: int) -> ModuleTask:
    x, y = (np.load(_file(folder, "train", part), mmap_mode="r") for part in "xy")

    def read(start: int, stop: int, rng: np.random.Generator) -> Iterator[Batch]:
        order = start + rng.permutation(stop - start)
        for part in np.array_split(order, max(1, (stop - start) // BATCH)):
            yield _floats(x[part]), torch.from_numpy(y[part])

    torch.manual_seed(seed)
    return ModuleTask(MODELS[model](classes), _loss, read, cut(len(y), SLICES), plan.epochs)


def one_process(task: ModuleTask, seed: int) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """torch's fused Adagrad on the same batches as a worker that has all slices to itself."""
    module = task.module
    module.train()
    adagrad = torch.optim.Adagrad(
        module.parameters(), lr=OPTIMIZER.rate, initial_accumulator_value=OPTIMIZER.initial_accumulator,
        eps=OPTIMIZER.eps, fused=True,
    )  # fmt: skip
    ledger = Ledger(task.slices, task.epochs, seed, 60.0)
    while (taken := ledger.lease(0, 0.0)) is not None:
        for batch, _ in batches(task, (seed, 0), taken):
            adagrad.zero_grad()
            nn.functional.cross_entropy(module(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
            adagrad.step()
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def train(
    build: partial[ModuleTask], plan: Plan, workers: int, n: int, seed: int, folder: str, host: Host
) -> tuple[dict[str, np.ndarray], int]:  # type: ignore[type-arg]
    """The parameters after a Downpour run, and how many examples it did not apply exactly once."""
    seen = Seen()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        job = Job(
            run=f"converge-{os.getpid()}-{os.path.basename(own)}",
            phase="converge",
            build=build,
            snapshots=store.join(own, "snapshots"),
            incarnations=store.join(own, "incarnations.json"),
            seed=seed,
            phase_number=0,
            cluster=ClusterOptions(num_workers=workers),
            downpour=DownpourOptions(n_fetch=n, n_push=n, local_step="adagrad" if n > 1 else "none"),
            optimizer=OPTIMIZER,
        )
        trained = host.train(job, seen, Never())
    rows = len(np.load(_file(folder, "train", "y"), mmap_mode="r")) * plan.epochs
    audit = trained.audit
    wrong = abs(audit["finished"] - rows) + audit["repeated"] + audit["refused"] + seen.restarts
    return trained.parameters, int(wrong)


def held_out_loss(parameters: dict[str, np.ndarray], task: ModuleTask, folder: str) -> float:  # type: ignore[type-arg]
    """Mean cross-entropy, in nats, of the held-out pictures."""
    module = task.module
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in parameters.items()})
    module.eval()
    x, y = (np.load(_file(folder, "held_out", part), mmap_mode="r") for part in "xy")
    total = 0.0
    with torch.no_grad():
        for part in np.array_split(np.arange(len(y)), max(1, len(y) // 256)):
            scores = module(_floats(x[part]))
            total += float(nn.functional.cross_entropy(scores, torch.from_numpy(y[part]), reduction="sum"))
    return total / len(y)


def _loss(module: nn.Module, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    value = nn.functional.cross_entropy(module(batch[0]), batch[1])
    return of_mean(value, len(batch[1]))


def _floats(pixels: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    return torch.from_numpy(pixels.astype(np.float32)).div_(127.5).sub_(1.0)


def _file(folder: str, name: str, part: str) -> str:
    return os.path.join(folder, f"{name}-{part}.npy")
