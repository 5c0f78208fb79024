"""The event stream, read by others than people: Prometheus, TensorBoard, MLflow, logs.

table         every metric: name, kind, labels, help
exposition    the last events as Prometheus series, on one /metrics endpoint per run
scrape        such an endpoint read again, for `psdevise top`
logs          JSON lines per process in the run folder
tensorboard   curves for TensorBoard, an optional extra
mlflow        parameters and curves for MLflow, an optional extra
"""

from __future__ import annotations

from psdevise.monitor.exposition import Monitor, Server

__all__ = ["Monitor", "Server"]
