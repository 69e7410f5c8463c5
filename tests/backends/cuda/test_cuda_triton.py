"""The loss as one Triton kernel agrees with the loss without it, by Triton's interpreter on a machine without a GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prerequisites import lacking

INTERPRETED = Path(__file__).with_name("interpreted_kernels.py")
TRAIN_FILE = Path(__file__).parents[3] / "backends" / "cuda" / "train.py"


@pytest.fixture(autouse=True)
def triton_is_here():
    if importlib.util.find_spec("triton") is None:
        lacking("needs triton: pip install -c constraints.txt triton")


def test_one_kernel_computes_the_loss_and_its_gradient():
    # In a process of its own: what runs the kernel there has to be chosen before Triton is imported.
    alone = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(INTERPRETED)]
    done = subprocess.run(
        alone, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]


def test_the_kernel_is_for_gpus_and_for_rows_that_fit_registers(load_train):
    train = load_train()
    assert not train.fits_one_pass(torch.zeros(2, 64))


COMPILED = """
import importlib.util, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
spec = importlib.util.spec_from_file_location("train", sys.argv[1])
train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train)
types = {"z": "*bf16", "targets": "*i64", "losses": "*fp32", "V": "i32", "scale": "fp32"}
constants = {"CAP": 15.0, "BLOCK": 8192}
source = ASTSource(train.cross_entropy_row, {**types, **dict.fromkeys(constants, "constexpr")}, constants)
built = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[2]), 32), options={"num_warps": 8})
open(sys.argv[3], "w").write(built.asm["ptx"])
"""


@pytest.mark.parametrize("capability", [90, 100])
def test_the_kernel_compiles_for_hopper_and_blackwell_without_spilling(tmp_path, capability):
    ptx, environment = tmp_path / "kernel.ptx", {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILED, str(TRAIN_FILE), str(capability), str(ptx)]
    subprocess.run(command, env=environment, check=True)
    [folder] = importlib.util.find_spec("triton").submodule_search_locations
    ptxas = Path(folder, "backends/nvidia/bin", "ptxas" if capability < 100 else "ptxas-blackwell")
    command = [str(ptxas), "-v", f"--gpu-name=sm_{capability}a", str(ptx), "-o", str(tmp_path / "kernel.cubin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in said, said
