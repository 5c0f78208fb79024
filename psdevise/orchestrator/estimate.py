"""`psdevise run --dry-run`: opens the data and says what would run, with which memory, traffic and resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from psdevise import store
from psdevise.data.pictures import Columns, PictureTable, classes
from psdevise.labels.split import read_split
from psdevise.models.core import build, parameters
from psdevise.orchestrator.artifacts import Artifacts
from psdevise.orchestrator.graph import keys
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.plan import plan
from psdevise.phases.visual import build_without_weights
from psdevise.server.layout import Dense, Layout, Table
from psdevise.worker.downpour import DownpourOptions

MB = 1e6


def estimate(options: RunOptions) -> Iterator[str]:
    """Lines of text.

    Raises:
        PsdeviseError: what a run would stop at, as far as opening the data tells.
    """
    folder = store.join(options.folder, options.name)
    artifacts = Artifacts(folder)
    yield f"run folder {folder}, seed {options.seed}"
    phases = plan(options)
    by_key = keys(phases)
    for phase in phases:
        key = by_key[phase.name][0]
        if artifacts.find(phase.name, key) is not None:
            state = "reuse"
        elif store.exists(artifacts.snapshots(phase.name, key)):
            state = "go on from its last snapshot"
        else:
            state = "run"
        yield f"  {phase.name:<14} {key}  {state}"
    if options.data.has_pictures:
        yield from _data(options)
    yield from _training(options)
    cluster = options.cluster
    gpu_workers = cluster.num_workers if cluster.gpu_workers is None else cluster.gpu_workers
    cpus = cluster.num_workers * cluster.cpus_per_worker + cluster.num_shards * cluster.cpus_per_shard
    yield (
        f"asked of Ray: {cpus:g} CPU, {gpu_workers * cluster.gpus_per_worker:g} GPU"
        f" ({cluster.num_workers} workers, {cluster.num_shards} shards)"
    )


def _data(options: RunOptions) -> Iterator[str]:
    images = options.data.images
    if options.data.world is not None:
        world = options.data.world
        kinds = 4 * world.parents
        yield f"pictures: {kinds * world.train_pictures} to train, {kinds * world.test_pictures} to test (drawn)"
        return
    columns = Columns(images.id_column, images.image_column, images.labels_column)
    tables = [PictureTable(path, columns) for path in (images.train, images.test)]
    names = classes(tables)
    split = read_split(names, options.labels.unseen)
    yield (
        f"pictures: {tables[0].rows} to train ({images.validation_rows} of them kept back), {tables[1].rows} to test;"
        f" {len(split.seen)} seen and {len(split.unseen)} unseen classes"
    )


def _training(options: RunOptions) -> Iterator[str]:
    language = options.language
    # The vocabulary is not counted yet: its cap or else a guess gives the scale.
    terms = options.vocabulary.max_terms or 100_000
    tables = (Table("input", terms, language.skipgram.dim), Table("inner", terms, language.skipgram.dim))
    if language.vectors is None:
        name = f"language (if the text has {terms:,} terms)"
        yield _line(name, Layout(tables=tables), options, language.downpour, True)
    if not options.data.has_pictures:
        return
    core = options.visual.core
    module = build(replace(core, weights=None)) if ":" in core.name else build_without_weights(core)
    dense = (Dense("core", (parameters(module),)),)
    yield _line("visual", Layout(dense=dense), options, options.visual.downpour, False)
    joint = (Dense("projection", (module.features, language.skipgram.dim)),)
    downpour = options.joint.projection.downpour
    if options.joint.label_vectors == "trained":
        yield _line("joint, projection and words", Layout(dense=joint, tables=tables), options, downpour, True)
    else:
        yield _line("joint, projection", Layout(dense=joint), options, downpour, False)
    if options.joint.fine_tuning.epochs and not core.frozen:
        yield _line(
            "joint, fine-tuning", Layout(dense=dense + joint), options, options.joint.fine_tuning.downpour, False
        )


def _line(name: str, layout: Layout, options: RunOptions, downpour: DownpourOptions, sparse: bool) -> str:
    """Adagrad keeps one accumulator per parameter; a worker holds parameters, gradient, what is accrued and
    what is in flight. The table rule `sum` keeps no accumulator."""
    layout = replace(layout, shards=options.cluster.num_shards)
    size = max(layout.shard_bytes(i) for i in range(layout.shards))
    whole = sum(layout.shard_bytes(i) for i in range(layout.shards))
    if sparse:
        return f"{name}: {size / MB:.0f} MB a shard, {whole / MB:.0f} MB a worker; rows of a block per step"
    moved = whole / downpour.n_fetch + whole / downpour.n_push
    return f"{name}: {2 * size / MB:.1f} MB a shard, {4 * whole / MB:.1f} MB a worker, {moved / MB:.1f} MB a step"
