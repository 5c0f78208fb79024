"""The dashboard's JSON against what Grafana asks of one, and its provisioning. That its queries return data is shown in
test_prometheus.py. No Grafana runs here."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import jsonschema
import pytest
import yaml

from psdevise.monitor.table import METRICS, exposed
from tests.monitor.server import ROOT

SCHEMA = json.loads((ROOT.parent / "tests/schemas/grafana-dashboard.json").read_text())
DASHBOARD = json.loads((ROOT / "grafana/dashboards/psdevise.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


def test_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DASHBOARD, SCHEMA)


@pytest.mark.parametrize("broken", [{"panels": [{"id": 1}]}, {"schemaVersion": "39"}, {"title": ""}])
def test_the_schema_refuses(broken: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(DASHBOARD | broken, SCHEMA)


def test_panels_have_a_place_and_a_number_of_their_own() -> None:
    assert len({p["id"] for p in PANELS}) == len(PANELS)
    for a, b in combinations([p["gridPos"] for p in PANELS], 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], f"{a} and {b} overlap"


def test_every_name_in_rules_and_queries_is_a_metric_or_a_recorded_rule() -> None:
    rules = [
        rule
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((ROOT / "prometheus" / name).read_text())["groups"]
        for rule in group["rules"]
    ]
    known = {exposed(name) for name in METRICS} | {r["record"] for r in rules if "record" in r}
    known |= {f"{name}_bucket" for name, row in METRICS.items() if row.kind == "histogram"}
    texts = [r["expr"] for r in rules] + [t["expr"] for p in PANELS for t in p.get("targets", ())]
    texts += [v["definition"] for v in DASHBOARD["templating"]["list"] if "definition" in v]
    used = {found for text in texts for found in re.findall(r"(?:\w+:)?psdevise_\w+(?::\w+)?", text)}
    assert used - known == set()
    assert len(used) > 30


def test_provisioning_names_the_data_source_and_the_folder() -> None:
    provisioning = ROOT / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards/psdevise.yml").read_text())["providers"]
    assert provider["type"] == "file"
    (variable,) = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "datasource"]
    assert variable["query"] == source["type"]
    for panel in PANELS:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == f"${{{variable['name']}}}"
