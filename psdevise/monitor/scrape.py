"""A run's /metrics read again, for `psdevise top`: from a URL, or from the run folder of a run that lives."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from psdevise import store
from psdevise.errors import DataError, ResourceError
from psdevise.monitor.table import METRICS

TIMEOUT = 5.0
TARGETS = ".metrics"  # in the folder of the runs: a file per live run, as Prometheus' file discovery reads them
Key = tuple[str, ...]


def target_file(folder: str, run: str) -> str:
    """The file that says where the run named `run` in `folder` answers scrapes while it lives:
    `[{"targets": ["host:port"], "labels": {}}]`."""
    return store.join(folder, TARGETS, f"{run}.json")


@dataclass(frozen=True)
class Scrape:
    """One moment of a run. values: metric (counters with `_total`) → label values in the table's order, without `run` →
    value; buckets have their bound last. `time`: seconds of the reader's clock."""

    run: str
    time: float
    values: Mapping[str, Mapping[Key, float]]

    def get(self, name: str, *labels: str) -> float | None:
        return self.values.get(name, {}).get(labels)

    def keys(self, name: str, *labels: str) -> list[Key]:
        """What follows `labels` in the series of a metric, in order: workers of a phase, outcomes of a shard."""
        found = {key[len(labels) :] for key in self.values.get(name, {}) if key[: len(labels)] == labels}
        return sorted(found, key=lambda key: [(len(part), part) for part in key])

    def rate(self, before: Scrape | None, name: str, *labels: str) -> float | None:
        """Increase of a counter per second since an earlier scrape; a fall is a restart from zero."""
        now, then = self.get(name, *labels), None if before is None else before.get(name, *labels)
        if now is None or then is None or before is None or self.time <= before.time:
            return None
        return (now - then if now >= then else now) / (self.time - before.time)


def locate(place: str) -> str:
    """The URL of /metrics: `place` itself if it is one (`http://host:port`, `host:port`), else that of the live run
    whose folder it is.

    Raises:
        DataError: the run in that folder does not serve /metrics now.
    """
    if place.startswith(("http://", "https://")):
        return place if place.rstrip("/").endswith("/metrics") else place.rstrip("/") + "/metrics"
    name, _, port = place.rpartition(":")
    if name and "/" not in name and port.isdigit():
        return f"http://{place}/metrics"
    folder, _, run = place.rstrip("/").rpartition("/")
    path = target_file(folder or ".", run)
    if not store.exists(path):
        raise DataError(
            "no run of this folder serves metrics now",
            where=place,
            mend="start it (monitor.port is not null), or give the URL that it has printed",
        )
    found: list[dict[str, Any]] = store.read_json(path)
    return f"http://{found[0]['targets'][0]}/metrics"


def scrape(url: str, now: float) -> Scrape:
    """
    Raises:
        ResourceError: nothing answers there, or not with a run's metrics.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            text = answer.read().decode()
        values: dict[str, dict[Key, float]] = {}
        run = ""
        for family in text_string_to_metric_families(text):
            if family.name not in METRICS:
                continue
            labels = [label for label in METRICS[family.name].labels if label != "run"]
            for sample in family.samples:
                run = sample.labels.get("run", run)
                key = tuple(sample.labels[label] for label in labels)
                key += (sample.labels["le"],) if "le" in sample.labels else ()
                values.setdefault(sample.name, {})[key] = sample.value
    except (OSError, ValueError) as e:
        reason = getattr(e, "reason", e)
        raise ResourceError(f"no metrics: {reason}", where=url, mend="has the run ended? is this its address?") from e
    if "psdevise_build_info" not in values:
        raise ResourceError("these are not a run's metrics", where=url, mend="give the address that the run printed")
    return Scrape(run, now, values)
