"""The event stream in MLflow. An optional extra: `pip install psdevise[mlflow]`.

psdevise run CONFIG --set monitor.mlflow=http://127.0.0.1:5000

The extra is MLflow's client; `mlflow server` and database stores are in the package mlflow itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from psdevise.errors import ConfigError
from psdevise.events import Event, Progress, Validated
from psdevise.monitor.logs import logger
from psdevise.monitor.tensorboard import curves

EXPERIMENT = "psdevise"
PARAMETER_LENGTH = 500  # the store's own limit is a little higher
EVERY_SECONDS = 5.0  # between two points of a curve: each is a request


class MLflow:
    """A listener that makes a run in the experiment `psdevise`: the configuration as parameters, loss, throughput, lag
    and learning rate of each phase as metrics over examples or words.

    Args:
        uri: MLflow's tracking URI.
        run: name of the run.
        configuration: nested options; `a.b` names a parameter.

    Raises:
        ConfigError: mlflow is not installed, or the URI does not answer.
    """

    def __init__(self, uri: str, run: str, configuration: Mapping[str, Any]) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError as e:
            raise ConfigError(
                "mlflow is not installed", where="monitor.mlflow", mend="pip install psdevise[mlflow]"
            ) from e
        self._metric = Metric
        self._counts: dict[str, int] = {}
        self._written: dict[str, float] = {}
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
            self._run = self._client.create_run(experiment, run_name=run).info.run_id
            parameters = [Param(name, str(value)[:PARAMETER_LENGTH]) for name, value in _flat(configuration)]
            for start in range(0, len(parameters), 100):
                self._client.log_batch(self._run, params=parameters[start : start + 100])
        except Exception as e:  # a store of any kind may stand behind the URI
            raise ConfigError(f"MLflow does not take the run: {e}", where=f"monitor.mlflow: {uri}") from e

    def __call__(self, event: Event) -> None:
        match event:
            case Progress(phase=phase) if event.count:
                self._counts[phase] = int(event.count)
                now = time.monotonic()
                if event.done < 1 and now - self._written.get(phase, -EVERY_SECONDS) < EVERY_SECONDS:
                    return
                self._written[phase] = now
                self._log({f"{phase}.{name}": value for name, value in curves(event).items()}, phase)
            case Validated(phase, name, value):
                self._log({f"{phase}.{''.join(c if c.isalnum() else '_' for c in name)}": value}, phase)
            case _:
                pass

    def close(self, failed: bool = False) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _log(self, values: Mapping[str, float], phase: str) -> None:
        now, step = int(time.time() * 1000), self._counts.get(phase, 0)
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        try:
            self._client.log_batch(self._run, metrics=metrics)
        except Exception as e:  # a run does not fail for its curves
            logger.warning("MLflow did not take a point of %s: %s", phase, e)


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
