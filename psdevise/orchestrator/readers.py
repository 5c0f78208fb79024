"""Who reads a run's events beside the user: /metrics, the log, TensorBoard, MLflow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from psdevise import config, store
from psdevise.errors import ConfigError
from psdevise.events import Listener
from psdevise.monitor import Monitor, logs
from psdevise.monitor.scrape import TARGETS, target_file
from psdevise.orchestrator.options import RunOptions


@contextmanager
def readers(options: RunOptions, folder: str) -> Iterator[tuple[list[Listener], str]]:
    """The listeners that the options ask for, and what the user should know of them; they end with the context.

    Raises:
        ConfigError: an optional extra is not installed, or does not answer.
    """
    with ExitStack() as stack:
        handler = logs.begin(store.join(folder, "logs"), "driver")
        stack.callback(logs.end, handler)
        monitor = Monitor(options.name, folder=folder if store.is_local(folder) else None)
        stack.callback(monitor.close)
        found: list[Listener] = [monitor, logs.log_event]
        if options.monitor.tensorboard:
            from psdevise.monitor.tensorboard import TensorBoard

            board = TensorBoard(store.join(folder, "tensorboard"))
            stack.callback(board.close)
            found.append(board)
        if options.monitor.mlflow is not None:
            from psdevise.monitor.mlflow import MLflow

            tracked = MLflow(options.monitor.mlflow, options.name, config.plain(options))
            stack.push(lambda kind, error, traceback: tracked.close(failed=kind is not None))
            found.append(tracked)
        served = ""
        if options.monitor.port is not None:
            served = _serve(monitor, options)
            stack.callback(store.remove, target_file(options.folder, options.name))
        with logs.telling_errors():
            yield found, served


def _serve(monitor: Monitor, options: RunOptions) -> str:
    """Starts /metrics, on a free port where another run has the configured one; where it is."""
    port, address = options.monitor.port, options.monitor.address
    assert port is not None
    try:
        server, taken = monitor.serve(port, address), ""
    except ConfigError:
        server, taken = monitor.serve(0, address), f" (port {port} is taken)"
    if server.address in ("0.0.0.0", "::"):  # on all of this machine's addresses: others know it by its name
        server = server._replace(address=socket.gethostname())
    path = target_file(options.folder, options.name)
    store.make_folder(store.join(options.folder, TARGETS))
    store.write_json(path, [{"targets": [server.target], "labels": {}}])
    return f"metrics at {server.url}{taken}"
