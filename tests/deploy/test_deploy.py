"""What lies in deploy/ is what KubeRay, Grafana, a shell and our own command line take."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.util import metrics as ray_metrics

from pipelines.cli import parse
from pipelines.metrics import RunMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"
SCHEMA = json.loads((Path(__file__).parent / "kuberay.json").read_text())
MANIFESTS = ("rayjob.yaml", "raycluster.yaml")


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def cluster(name: str) -> dict[str, Any]:
    spec = manifest(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(name: str) -> Iterator[dict[str, Any]]:
    groups = [cluster(name)["headGroupSpec"], *cluster(name)["workerGroupSpecs"]]
    for group in groups:
        yield group["template"]["spec"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_no_field_that_kuberay_does_not_know(name: str) -> None:
    jsonschema.validate(manifest(name), SCHEMA)
    wrong = copy.deepcopy(manifest(name))
    wrong["spec"]["workerGroupSpec"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_both_manifests_are_of_one_cluster() -> None:
    assert cluster("rayjob.yaml") == cluster("raycluster.yaml")


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_pod_mounts_what_it_has_and_asks_for_as_much_as_it_may_use(name: str) -> None:
    for pod in pods(name):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]  # what Ray is told it has


def test_work_runs_on_spot_nodes_with_and_without_gpus_and_none_on_the_head() -> None:
    spec = cluster("raycluster.yaml")
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"]
    limits = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for group in spec["workerGroupSpecs"]
    }
    assert ["nvidia.com/gpu" in limits[name] for name in ("cpu-spot", "gpu-spot")] == [False, True]
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert any("spot" in t["key"] for t in group["template"]["spec"]["tolerations"])


def test_the_versions_are_those_that_are_pinned() -> None:
    constraints = (DEPLOY.parent / "constraints.txt").read_text()
    pinned = re.search(r"^ray==(.+)$", constraints, re.M)
    assert pinned is not None
    for name in MANIFESTS:
        assert cluster(name)["rayVersion"] == pinned[1]


def test_the_entrypoint_is_a_command_that_our_command_line_takes() -> None:
    program, *arguments = shlex.split(manifest("rayjob.yaml")["spec"]["entrypoint"])
    assert program == "lavie"
    command = parse(arguments)
    assert (command.out, command.ray_address) == ("s3://lavie/corpus", "auto")


def test_the_board_shows_every_metric_that_a_run_tells_and_no_other() -> None:
    board = json.loads((DEPLOY / "grafana-lavie.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_(lavie_\w+)_total", target["expr"])
    }
    told = {
        metric.info["name"]
        for metric in vars(RunMetrics()).values()
        if isinstance(metric, ray_metrics.Counter)
    }
    assert asked == told
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)


def test_the_slurm_script_is_a_script_that_refuses_wrong_arguments() -> None:
    script = DEPLOY / "lavie.slurm"
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run(
        ["bash", str(script), "only-one"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


def test_the_image_copies_what_is_there() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        *sources, _ = line.split()
        for source in sources:
            assert (DEPLOY.parent / source).exists(), source
