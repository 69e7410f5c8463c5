"""The loss as one Triton kernel agrees with the loss without it, by Triton's interpreter on a machine without a GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prerequisites import lacking

TRAIN_FILE = Path(__file__).parents[3] / "backends" / "cuda" / "train.py"


@pytest.fixture(autouse=True)
def triton_is_here():
    if importlib.util.find_spec("triton") is None:
        lacking("needs triton: pip install -c constraints.txt triton")


@pytest.fixture
def interpreted(monkeypatch, load_train):
    """Loads the train file with its kernel run by the interpreter, which takes tensors of the processor."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    return load_train


def loss_and_gradients(train, x, weight, targets):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = train.ChunkedCrossEntropy.apply(x, weight, targets)
    (3 * loss).backward()
    return loss.detach(), x.grad, weight.grad


@pytest.mark.parametrize("cap", [15.0, 0.0])
@pytest.mark.parametrize(("vocab", "dtype"), [(64, torch.float32), (77, torch.float32), (77, torch.bfloat16)])
def test_one_kernel_computes_the_loss_and_its_gradient(interpreted, monkeypatch, cap, vocab, dtype):
    train = interpreted(SOFTCAP=cap, VOCAB_SIZE=vocab, LOSS_CHUNK_TOKENS=24)
    draw = torch.Generator().manual_seed(1)
    # Products up to 60: beyond the cap, where its slope is nearly nothing.
    x = (8 * torch.randn(50, 16, generator=draw)).to(dtype)
    weight, targets = 2 * torch.randn(vocab, 16, generator=draw), torch.randint(0, vocab, (50,), generator=draw)
    plain = loss_and_gradients(train, x, weight, targets)
    monkeypatch.setattr(train, "fits_one_pass", lambda z: True)
    fused = loss_and_gradients(train, x, weight, targets)
    for one, other in zip(plain, fused, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance * float(one.float().abs().max()))
    assert float(plain[1].float().abs().max()) > 0


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
    # In a process of its own: the interpreter has changed this one's Triton.
    ptx, environment = tmp_path / "kernel.ptx", {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILED, str(TRAIN_FILE), str(capability), str(ptx)]
    subprocess.run(command, env=environment, check=True)
    [folder] = importlib.util.find_spec("triton").submodule_search_locations
    ptxas = Path(folder, "backends/nvidia/bin", "ptxas" if capability < 100 else "ptxas-blackwell")
    command = [str(ptxas), "-v", f"--gpu-name=sm_{capability}a", str(ptx), "-o", str(tmp_path / "kernel.cubin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in said, said
