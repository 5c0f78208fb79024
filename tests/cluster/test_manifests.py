"""The files in cluster/ and docker/ against what they repeat: constraints.txt, the options' defaults, setup.cfg."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

import psdevise
from psdevise import config
from psdevise.orchestrator.options import MonitorOptions, RunOptions
from psdevise.runtime.memory import FOR_TRAINING, TUNABLES

CRDS = os.environ.get("PSDEVISE_CRDS")  # a folder of published CRDs, which are not in this repository
ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster/kuberay"
RAYJOB = KUBERAY / "rayjob.yaml"
LAUNCHER = sorted((ROOT / "cluster/ray").glob("*.yaml"))
PROMETHEUS = ROOT / "cluster/prometheus/prometheus.yml"
DOCKERFILE = ROOT / "docker/Dockerfile"
SCHEMA = json.loads((ROOT / "tests/schemas/kuberay.json").read_text())


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    return {d["kind"]: d for d in yaml.safe_load_all(RAYJOB.read_text())}


@pytest.fixture(scope="module")
def job(documents: dict[str, Any]) -> Any:
    return documents["RayJob"]["spec"]


@pytest.fixture(scope="module")
def pods(job: dict[str, Any]) -> list[Any]:
    cluster = job["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 and "+" not in pin[1] for pin in found), "a line that is not name==version"
    return {canonical(name): version for name, version in found}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ports(pod: Any) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}


def test_everything_that_setup_cfg_names_is_pinned(setup: configparser.ConfigParser) -> None:
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]
    names = {canonical(re.split(r"[\[<>=]", line)[0]) for line in wanted.split()}
    assert names - set(pins()) == set()


def test_ray_is_the_pinned_one(documents: dict[str, Any], job: dict[str, Any]) -> None:
    assert documents["RayJob"]["apiVersion"] == "ray.io/v1"
    assert job["rayClusterSpec"]["rayVersion"] == pins()["ray"]


def test_all_pods_run_the_image_of_this_version(pods: list[Any], setup: configparser.ConfigParser) -> None:
    assert setup["metadata"]["version"] == psdevise.__version__
    image = f"psdevise:{setup['metadata']['version']}"
    assert [pod["spec"]["containers"][0]["image"] for pod in pods] == [image] * len(pods)
    assert f"-t {image} " in DOCKERFILE.read_text()


def test_the_entrypoint_is_a_run_that_the_options_accept(job: dict[str, Any], pods: list[Any]) -> None:
    program, verb, path, *rest = shlex.split(job["entrypoint"])
    assert (program, verb) == ("psdevise", "run")
    assert rest[::2] == ["--set"] * (len(rest) // 2)
    options = config.load(RunOptions, str(ROOT / Path(path).relative_to("/app")), tuple(rest[1::2]))
    mounts = [mount["mountPath"] for pod in pods for mount in pod["spec"]["containers"][0]["volumeMounts"]]
    assert mounts == [options.folder] * len(pods), "every pod sees the folder of runs"
    assert options.monitor.address == "0.0.0.0"
    assert options.monitor.port == ports(pods[0])["run-metrics"]


def test_the_workers_have_the_cpus_that_the_run_asks_for(job: dict[str, Any]) -> None:
    overrides = tuple(shlex.split(job["entrypoint"])[4::2])
    options = config.load(RunOptions, str(ROOT / "jobs/quickstart.yaml"), overrides).cluster
    cluster = job["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert groups["memory"]["rayStartParams"]["num-cpus"] == "0"
    key, _, value = str(options.shards_on).partition("=")
    assert groups["memory"]["labels"] == {key: value}, "the shards' nodes are those that the run asks for"
    workers = groups["workers"]
    have = workers["minReplicas"] * int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert have >= options.num_workers * options.cpus_per_worker + options.num_shards * options.cpus_per_shard


def test_the_volume_is_the_claim_and_can_be_shared(documents: dict[str, Any], pods: list[Any]) -> None:
    claim = documents["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods:
        (volume,) = pod["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert [m["name"] for m in pod["spec"]["containers"][0]["volumeMounts"]] == [volume["name"]]


def test_ports_are_the_same_everywhere(pods: list[Any]) -> None:
    port = MonitorOptions().port
    assert f"EXPOSE {port}\n" in DOCKERFILE.read_text()
    assert f"http://127.0.0.1:{port}/metrics" in DOCKERFILE.read_text()
    for pod, name in zip(pods, ("run-metrics", "metrics", "metrics"), strict=True):
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports(pod)[name])
    assert ports(pods[0])["run-metrics"] == port


def test_pods_run_as_the_user_of_the_image(pods: list[Any]) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE.read_text(), re.MULTILINE)
    for pod in pods:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (str(context["runAsUser"]), str(context["fsGroup"])) == user
    assert f"--uid {user[0]} " in DOCKERFILE.read_text()


def test_the_image_installs_through_the_constraints() -> None:
    steps = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    installs = [step for line in steps.splitlines() for step in line.split("&&") if " pip install" in step]
    assert installs
    assert all("--constraint constraints.txt" in step for step in installs)


def test_the_cuda_image_has_the_same_steps_and_checks_for_cuda() -> None:
    plain, cuda = DOCKERFILE.read_text(), (ROOT / "docker/Dockerfile.cuda").read_text()
    for word in ("FROM ", "USER ", "EXPOSE ", "VOLUME ", "WORKDIR ", "COPY ", "ENTRYPOINT ", "HEALTHCHECK "):
        lines = [[line for line in text.splitlines() if line.startswith(word)] for text in (plain, cuda)]
        assert lines[0] == lines[1], word
    assert "torch.version.cuda" in cuda
    assert f"ENV {TUNABLES}={FOR_TRAINING}\n" in plain
    assert f"ENV {TUNABLES}={FOR_TRAINING}\n" in cuda
    assert f"{TUNABLES}={FOR_TRAINING}\n" in (ROOT / "docs/operations.md").read_text()
    ignored = [(ROOT / f"docker/{name}.dockerignore").read_text() for name in ("Dockerfile", "Dockerfile.cuda")]
    assert ignored[0] == ignored[1]


def test_compose_starts_one_image_as_head_and_workers_with_a_token() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    for name in ("head", "worker"):
        assert services[name]["image"] == f"psdevise:{psdevise.__version__}"
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert services[name]["healthcheck"]["test"][0] == "CMD-SHELL"
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published), "open to this machine only"
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume.startswith("../cluster/prometheus"):
                assert (ROOT / "docker" / volume.split(":")[0]).is_dir()


def test_the_chroot_script_takes_the_images_steps() -> None:
    script = (ROOT / "docker/chroot.sh").read_text()
    assert subprocess.run(["sh", "-n", str(ROOT / "docker/chroot.sh")], check=False).returncode == 0
    for step in ("--constraint", "--no-build-isolation", "useradd --create-home --uid 1000", "/app /runs"):
        assert step in script
        assert step in DOCKERFILE.read_text()


def test_what_the_image_copies_is_let_through_to_the_builder() -> None:
    let_through = {
        line[1:] for line in (ROOT / "docker/Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied: set[str] = set()
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            copied.update(word for word in line.split()[1:-1] if not word.startswith("--"))
    assert copied == let_through
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []


def test_the_standing_cluster_has_the_same_roles_image_and_probes(job: dict[str, Any], pods: list[Any]) -> None:
    documents = {d["kind"]: d for d in yaml.safe_load_all((KUBERAY / "raycluster.yaml").read_text())}
    cluster, other = documents["RayCluster"]["spec"], job["rayClusterSpec"]
    assert cluster["rayVersion"] == other["rayVersion"] == pins()["ray"]
    assert cluster["authOptions"] == other["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"] == other["headGroupSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    groups = {g["groupName"]: g for g in cluster["workerGroupSpecs"]}
    assert groups["gpu"]["labels"] == {"ray.io/market-type": "spot"}, "what keeps shards away (runtime/placement.py)"
    (container,) = groups["gpu"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == f"psdevise:{psdevise.__version__}-cuda"
    for pod in [*pods, *(g["template"] for g in groups.values())]:
        (container,) = pod["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            assert "/api/local_raylet_healthz" in container[probe]["exec"]["command"][-1]
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_operators_prometheus_finds_the_ports_that_the_pods_name(pods: list[Any]) -> None:
    monitor = yaml.safe_load((KUBERAY / "podmonitor.yaml").read_text())
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    named = {name for pod in pods for name in ports(pod)}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= named


def resources() -> list[Any]:
    """KubeRay's and the Prometheus operator's; what is left are Kubernetes' own."""
    found = [d for path in sorted(KUBERAY.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text())]
    return [document for document in found if document["apiVersion"] != "v1"]


def test_manifests_have_the_fields_of_the_operators() -> None:
    schema = jsonschema.Draft202012Validator(SCHEMA)
    assert [d["kind"] for d in resources()] == ["PodMonitor", "RayCluster", "RayJob"]
    for document in resources():
        schema.validate(document)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("RayCluster", "workerGroups", []),
        ("RayCluster", "authOptions", {"mode": "password"}),
        ("RayCluster", "rayVersion", 2.6),
        ("RayJob", "rayClusterSpec", {"headGroupSpec": {}}),
        ("RayJob", "ttl", 3),
        ("PodMonitor", "podMetricsEndpoints", [{"port": 9464}]),
    ],
)
def test_what_the_operators_do_not_know_is_refused(kind: str, field: str, value: object) -> None:
    (document,) = [d for d in resources() if d["kind"] == kind]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"spec": document["spec"] | {field: value}}, SCHEMA)


if CRDS is not None:

    @pytest.mark.parametrize("path", sorted(KUBERAY.glob("*.yaml")), ids=lambda p: p.name)
    def test_manifests_fit_the_published_schemas(path: Path) -> None:
        """The CRDs of KubeRay and of the Prometheus operator, as their releases ship them, in one folder.

        PSDEVISE_CRDS=folder python -m pytest tests/cluster/test_manifests.py
        """
        schemas = {}
        for file in Path(CRDS).glob("*.yaml"):
            for crd in yaml.safe_load_all(file.read_text()):
                if crd and crd.get("kind") == "CustomResourceDefinition":
                    for version in crd["spec"]["versions"]:
                        key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
                        schemas[key] = version["schema"]["openAPIV3Schema"]
        for document in yaml.safe_load_all(path.read_text()):
            if document["apiVersion"] != "v1":
                jsonschema.validate(document, closed(schemas[document["apiVersion"], document["kind"]]))


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(part) for key, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema and "additionalProperties" not in schema:
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or set(schema["properties"]) == {"metadata"}
        return inside if open_ else inside | {"additionalProperties": False}
    return inside


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda p: p.name)
def test_launcher_files_fit_the_schema_in_rays_wheel(path: Path) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_the_cloud_example_keeps_shards_on_nodes_that_stay() -> None:
    tree = yaml.safe_load((ROOT / "cluster/ray/aws.yaml").read_text())
    types = tree["available_node_types"]
    assert tree["head_node_type"] in types
    assert types["head"]["resources"] == types["memory"]["resources"] == {"CPU": 0}
    for name, kind in types.items():
        spot = "InstanceMarketOptions" in kind["node_config"]
        assert spot == (name in ("gpu", "cpu")) == (kind["labels"].get("ray.io/market-type") == "spot")
    assert tree["docker"]["image"] == f"psdevise:{psdevise.__version__}"


@pytest.mark.prometheus
def test_prometheus_takes_its_file() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(PROMETHEUS)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_prometheus_reads_what_ray_lists(tmp_path: Path) -> None:
    """The list in the form that Ray 2.60 writes; `promtool` reads the files that file_sd_configs names."""
    listing = tmp_path / "prom_metrics_service_discovery.json"
    listing.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": ["127.0.0.1:8080"]}]))
    text = re.sub(r"/tmp/ray/session_latest/[\w.]+", str(listing), PROMETHEUS.read_text())
    assert str(listing) in text
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    for rules in ("rules.yml", "alerts.yml"):
        (tmp_path / rules).write_text((PROMETHEUS.parent / rules).read_text())
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
