"""The recipes are read as far as a machine without their clusters can read them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click import Command

from autoresearch.core.cli.run.command import loop

RECIPES = Path(__file__).parents[3] / "docs" / "recipes"


@pytest.mark.parametrize("name", ["slurm.sh", "ssh-pair.sh"])
def test_scripts_are_bash(name: str) -> None:
    assert subprocess.run(["bash", "-n", RECIPES / name], capture_output=True).returncode == 0


def test_kubernetes_has_a_head_without_trials_and_workers_with_a_gpu_each() -> None:
    cluster = yaml.safe_load((RECIPES / "kuberay.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    head, (workers,) = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for group in (head, workers):
        spec = group["template"]["spec"]
        mounted = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


CLUSTER = {"rayVersion": str, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict}
WORKERS = {**HEAD, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
"""The fields of the API ray.io/v1 of KubeRay that the recipe has, with the types of their values."""


def test_kubernetes_names_fields_that_kuberay_knows() -> None:
    spec = yaml.safe_load((RECIPES / "kuberay.yaml").read_text())["spec"]
    head, workers = spec["headGroupSpec"], spec["workerGroupSpecs"]
    for known, given in ((CLUSTER, spec), (HEAD, head), *((WORKERS, one) for one in workers)):
        assert given.keys() == known.keys()
        assert all(type(given[name]) is kind for name, kind in known.items())
    assert all(type(value) is str for one in (head, *workers) for value in one["rayStartParams"].values())


def test_kubernetes_accepts_the_pods() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="no schemas: pip install kubernetes-validate")
    spec = yaml.safe_load((RECIPES / "kuberay.yaml").read_text())["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes.validate(pod, "1.34", strict=True)
        with pytest.raises(kubernetes.ValidationError):
            kubernetes.validate({**pod, "spec": {**pod["spec"], "volume": []}}, "1.34", strict=True)


def test_skypilot_reads_the_task() -> None:
    sky = pytest.importorskip("sky", reason="no SkyPilot: pip install skypilot")
    config = yaml.safe_load((RECIPES / "skypilot.yaml").read_text())
    task = sky.Task.from_yaml_config({**config, "workdir": None})
    assert task.num_nodes == 2 and [one.accelerators for one in task.resources] == [{"H100": 1}]
    with pytest.raises(ValueError, match="num_nodes"):
        sky.Task.from_yaml_config({**config, "num_node": 2})


def test_skypilot_starts_one_head_and_the_loop_on_it() -> None:
    task = yaml.safe_load((RECIPES / "skypilot.yaml").read_text())
    assert {"num_nodes", "resources", "setup", "run"} <= task.keys()
    assert subprocess.run(["bash", "-n"], input=task["run"], text=True, capture_output=True).returncode == 0
    assert task["run"].count("ray start --head") == 1


def test_every_recipe_gives_options_that_the_loop_has() -> None:
    assert isinstance(loop, Command)
    known = {name for option in loop.params for name in option.opts}
    for path in RECIPES.iterdir():
        calls = re.findall(r"\bar\b[^\n`]*?\bloop ([^\n`]*)", path.read_text())
        assert calls, path
        for call in calls:
            assert set(re.findall(r"--[a-z-]+", call)) <= known, path
