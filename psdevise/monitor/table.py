"""Every metric of a run: name, kind, help, labels and where its value stands. docs/metrics.md is made from this."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Row(NamedTuple):
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


RUN = ("run",)
PHASE = ("run", "phase")
WORKER = ("run", "phase", "worker")
SHARD = ("run", "phase", "shard")

# A counter is exposed with `_total` behind its name, a histogram with `_bucket`, `_count` and `_sum`.
METRICS: dict[str, Row] = {
    # workers
    "psdevise_examples": Row("counter", "Examples whose gradients a worker has computed.", WORKER),
    "psdevise_words": Row("counter", "Words of text that a worker has trained on.", WORKER),
    "psdevise_steps": Row("counter", "Steps (minibatches) of a worker.", WORKER),
    "psdevise_step_seconds": Row("counter", "Seconds of steps: computing, the wire and waiting for data.", WORKER),
    "psdevise_compute_seconds": Row("counter", "Seconds that a worker has computed.", WORKER),
    "psdevise_wire_seconds": Row(
        "counter", "Seconds that a worker has sent or waited for shards and coordinator.", WORKER
    ),
    "psdevise_fetch_seconds": Row("counter", "Seconds of these that went into fetches of parameters.", WORKER),
    "psdevise_push_seconds": Row("counter", "Seconds of these that went into pushes of gradients.", WORKER),
    "psdevise_read_seconds": Row("counter", "Seconds that a worker has waited for data.", WORKER),
    "psdevise_idle_seconds": Row("counter", "Seconds that a worker has waited for other workers.", WORKER),
    "psdevise_pulled_bytes": Row("counter", "Bytes of parameters that a worker has fetched.", WORKER),
    "psdevise_pushed_bytes": Row("counter", "Bytes of gradients that a worker has pushed.", WORKER),
    "psdevise_in_flight_bytes": Row("gauge", "Bytes of pushes that wait for their answers.", WORKER),
    "psdevise_queue_batches": Row("gauge", "Batches that are read ahead and wait for the worker.", WORKER),
    "psdevise_lag": Row("gauge", "Lag of a worker's last push: updates applied since its fetch.", WORKER),
    "psdevise_silent_seconds": Row("gauge", "Seconds since the coordinator has heard of a worker.", WORKER),
    # shards
    "psdevise_push_lag": Row("histogram", "Lag of the pushes that a shard has answered, in updates.", SHARD),
    "psdevise_pushes": Row("counter", "Pushes by what became of them.", (*SHARD, "outcome")),
    "psdevise_shard_version": Row("gauge", "Updates in a shard's parameters.", SHARD),
    "psdevise_shard_incarnation": Row("gauge", "Incarnation of a shard; grows with each restart.", SHARD),
    "psdevise_shard_update_seconds": Row("counter", "Seconds that a shard has worked on pushes.", SHARD),
    "psdevise_shard_bytes": Row("gauge", "Bytes of a shard's parameters and accumulators.", SHARD),
    "psdevise_accumulator_norm": Row("gauge", "Norm of a shard's Adagrad sums of squares, each 10 s.", SHARD),
    # phases
    "psdevise_units": Row("counter", "What a phase counts, of all its workers since it began.", (*PHASE, "unit")),
    "psdevise_loss": Row("gauge", "Mean loss of an example over the last seconds.", PHASE),
    "psdevise_learning_rate": Row("gauge", "The shards' base rate times the schedule's multiplier.", PHASE),
    "psdevise_learning_rate_multiplier": Row("gauge", "What the schedule multiplies the rate by.", PHASE),
    "psdevise_workers_alive": Row("gauge", "Workers that have joined the phase and not left it.", PHASE),
    "psdevise_leases": Row("gauge", "Slices of the data that workers hold.", PHASE),
    "psdevise_slice_examples": Row("gauge", "Examples of the ledger: finished, repeated, refused.", (*PHASE, "state")),
    "psdevise_progress_ratio": Row("gauge", "Share of the phase that is done.", PHASE),
    "psdevise_left_seconds": Row("gauge", "Seconds that the phase will still take at this pace.", PHASE),
    "psdevise_epoch": Row("gauge", "Pass over the data, from 1.", PHASE),
    "psdevise_phase_start_timestamp_seconds": Row("gauge", "Unix time at which the phase began.", PHASE),
    "psdevise_snapshots": Row("counter", "Snapshots written.", PHASE),
    "psdevise_snapshot_duration_seconds": Row("gauge", "Seconds that the last snapshot took.", PHASE),
    "psdevise_snapshot_timestamp_seconds": Row("gauge", "Unix time of the last snapshot.", PHASE),
    "psdevise_restarts": Row("counter", "Workers and shards that died and were replaced.", (*PHASE, "role")),
    "psdevise_phase_seconds": Row("gauge", "Seconds that a finished phase took, 0 if reused.", PHASE),
    # the run
    "psdevise_run_finished": Row("gauge", "1 once the run has ended well.", RUN),
    "psdevise_disk_free_bytes": Row("gauge", "Free bytes of the disk that holds the run folder.", RUN),
    "psdevise_disk_bytes": Row("gauge", "Bytes of the disk that holds the run folder.", RUN),
    "psdevise_build_info": Row("gauge", "Always 1; the versions are labels.", (*RUN, "version", "python")),
}
# metric → name in WorkerFigures.counters, in WorkerFigures.gauges, in Progress.shards
WORKER_COUNTERS = {
    "psdevise_examples": "examples",
    "psdevise_words": "words",
    "psdevise_compute_seconds": "compute_seconds",
    "psdevise_wire_seconds": "wire_seconds",
    "psdevise_fetch_seconds": "fetch_seconds",
    "psdevise_push_seconds": "push_seconds",
    "psdevise_read_seconds": "read_seconds",
    "psdevise_idle_seconds": "idle_seconds",
    "psdevise_pulled_bytes": "bytes_pulled",
    "psdevise_pushed_bytes": "bytes_pushed",
}
WORKER_GAUGES = {
    "psdevise_lag": "lag",
    "psdevise_in_flight_bytes": "in_flight_bytes",
    "psdevise_queue_batches": "queue",
    "psdevise_silent_seconds": "silent_seconds",
}
SHARD_FIGURES = {
    "psdevise_shard_update_seconds": "update_seconds",
    "psdevise_shard_bytes": "bytes",
    "psdevise_accumulator_norm": "accumulator_norm",
}
STEP_SECONDS = ("compute_seconds", "wire_seconds", "read_seconds")  # what a step's time is made of
LAG_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

HEAD = """\
# Metrics

Each run serves `/metrics` (default `127.0.0.1:9464`; `monitor.port: 0` takes a free one, `null` none). If the port
is taken by another run, a free one is used and printed. Where it is stands in `FOLDER/.metrics/NAME.json`, which
Prometheus' file discovery reads, for as long as the run lives. The registry is the run's own; Ray's metrics are
scraped beside it (`cluster/prometheus/prometheus.yml`). Series of workers and phases end with them; a worker or shard
that was replaced counts from zero again. `worker` and `shard` are ranks, so there are as many series as there are
workers and shards, however often they die.

This page is made from the table in `psdevise/monitor/table.py`:
`python -c "from psdevise.monitor.table import page; open('docs/metrics.md', 'w').write(page())"`.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def exposed(name: str) -> str:
    """The name under which a metric is queried: counters end in `_total`."""
    return f"{name}_total" if METRICS[name].kind == "counter" else name


def page() -> str:
    """docs/metrics.md."""
    rows = (
        f"| `{exposed(name)}` | {row.kind} | {', '.join(row.labels)} | {row.help} |" for name, row in METRICS.items()
    )
    return HEAD + "\n".join(rows) + "\n"
