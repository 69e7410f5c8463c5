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
