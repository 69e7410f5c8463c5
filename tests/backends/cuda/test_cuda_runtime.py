"""What the core needs of PyTorch: device and tier, copies, likelihoods, weights."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoresearch.backends.cuda import runtime
from autoresearch.core.cli.run.resolve import device_words
from autoresearch.core.trial.sandbox.host_paths import SYSTEM_FOLDERS, visible_roots


def card(name, major, gigabytes):
    return SimpleNamespace(name=name, major=major, minor=0, total_memory=int(gigabytes * 2**30))


def test_where_no_memory_can_be_shared_pytorch_compiles_in_one_process(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    assert runtime.shares_memory(tmp_path)
    runtime.detect()
    assert "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ
    monkeypatch.setattr(runtime, "shares_memory", lambda: False)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "4")
    runtime.detect()
    assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == "1"


@pytest.mark.parametrize(
    "properties, tier, precision, peak",
    [
        (card("NVIDIA H100 80GB HBM3", 9, 79.1), "h100", "bf16", 989e12),
        (card("NVIDIA H100 PCIe", 9, 79.1), "h100", "bf16", 756e12),
        (card("NVIDIA H200", 9, 139.8), "h200", "bf16", 989e12),
        (card("NVIDIA B200", 10, 178.0), "b200", "bf16", 2.25e15),
        (card("NVIDIA A100-SXM4-80GB", 8, 79.3), "rtx48", "bf16", 312e12),
        (card("NVIDIA GeForce RTX 4090", 8, 23.6), "rtx24", "bf16", 165.2e12),
        (card("NVIDIA GeForce RTX 5060", 12, 7.6), "rtx", "bf16", None),
        (card("NVIDIA RTX PRO 6000 Blackwell", 12, 95.0), "rtx48", "bf16", None),
        (card("NVIDIA GeForce RTX 2060", 7, 5.8), "rtx", "fp32", None),
        (card("AMD Instinct MI300X", 9, 191.7), "b200", "bf16", 1307.4e12),
        (card("AMD Radeon RX 7900 XTX", 11, 24.0), "rtx24", "bf16", None),
    ],
)
def test_a_card_gets_the_preset_and_the_peak_that_fit_it(monkeypatch, properties, tier, precision, peak):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (properties.total_memory, properties.total_memory))
    device = runtime.detect()
    assert (device.kind, device.name, device.tier) == ("cuda", properties.name, tier)
    assert (device.precision, device.peak_flops) == (precision, peak)
    assert device_words(device) == properties.name


def test_a_card_that_others_fill_gets_the_preset_that_fits_what_is_free_and_that_is_said(monkeypatch):
    properties = card("NVIDIA H100 80GB HBM3", 9, 79.1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (20 * 2**30, properties.total_memory))
    device = runtime.detect()
    assert device.tier == "rtx24"
    assert device_words(device) == "NVIDIA H100 80GB HBM3 (20 GiB free)"


def test_a_card_of_amd_names_rocm_as_its_driver(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4.1")
    assert runtime._driver() == "ROCm 6.4.1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_card_the_processor_is_named_and_gets_the_cpu_preset():
    device = runtime.detect()
    assert (device.kind, device.tier, device.peak_flops) == ("cpu", "cpu", None)
    assert device.name and device.framework == f"torch {torch.__version__}"


def test_the_precision_that_is_announced_is_the_one_that_the_train_file_takes(load_train):
    device = runtime.detect()
    dtype = load_train(PRECISION="auto").compute_dtype(device.kind)
    assert dtype is {"bf16": torch.bfloat16, "fp32": torch.float32}[device.precision]


def test_importing_the_runtime_and_asking_for_it_imports_no_torch():
    code = (
        "import sys; from autoresearch.backends.cuda import runtime as r; "
        "r.unavailable(); r.launch_environment(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_trial_is_told_of_a_folder_of_kernels_that_it_may_read():
    folder = Path(runtime.launch_environment()["KERNELS_CACHE"])
    readable = [*visible_roots(), *map(Path, SYSTEM_FOLDERS)]
    assert any(folder.is_relative_to(place) for place in readable)


def test_a_missing_torch_is_named_with_its_fix(monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in runtime.unavailable()


def test_a_batch_does_not_share_memory_with_the_host_array():
    host = np.arange(6, dtype=np.uint16).reshape(2, 3)
    batch = runtime.to_device(host)
    host[:] = 9
    assert runtime.to_numpy(batch).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_likelihoods_are_float32_whatever_the_logits_and_the_chunk(monkeypatch):
    logits = torch.randn(3, 5, 11, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(1))
    exact = logits.double()
    expected = (exact.logsumexp(-1) - exact.gather(-1, targets[..., None])[..., 0]).numpy()
    for size in (1, 4 * 11 * 4, 2**20):
        monkeypatch.setattr(runtime, "NLL_BYTES", {"cpu": size})
        nll = runtime.nll(logits, targets)
        assert nll.dtype == np.float32 and nll.shape == (3, 5)
        np.testing.assert_allclose(nll, expected, atol=1e-5)


def test_weights_come_back_bit_for_bit_and_a_shared_one_is_stored_once(tmp_path):
    def tied():
        model = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False))
        model[1].weight = model[0].weight
        return model

    stored, fresh = tied(), tied()
    path = tmp_path / "weights.safetensors"
    runtime.save_weights(stored, path)
    runtime.load_weights(fresh, path)
    assert torch.equal(fresh[1].weight, stored[0].weight)
    assert runtime.parameter_count(fresh) == 28
    assert path.stat().st_size < 2 * 28 * 4


def test_weights_of_every_kind_of_number_come_back(tmp_path):
    def model(fill):
        model = torch.nn.Module()
        for name in ("float64", "float16", "bfloat16", "complex64", "int64", "int32", "int8", "uint8", "bool"):
            tensor = torch.tensor([[fill, 0, fill]]).to(getattr(torch, name))
            model.register_buffer(f"of_{name}", tensor)
        model.register_buffer("empty", torch.zeros(0, 4))
        return model

    stored, fresh, path = model(3), model(0), tmp_path / "weights.safetensors"
    runtime.save_weights(stored, path)
    runtime.load_weights(fresh, path)
    for (name, there), here in zip(stored.named_buffers(), fresh.buffers(), strict=True):
        assert torch.equal(here, there), name
    stored.register_buffer("wide", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(ValueError, match="wide is of complex128, which cannot be written as weights"):
        runtime.save_weights(stored, path)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    runtime.save_weights(torch.nn.Linear(4, 4), path)
    with pytest.raises(ValueError, match="weight"):
        runtime.load_weights(torch.nn.Linear(4, 5), path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="safetensors"):
        runtime.load_weights(torch.nn.Linear(4, 4), path)


def test_inference_restores_the_mode():
    model = torch.nn.Linear(2, 2).train()
    with runtime.inference(model):
        assert not model.training and not torch.is_grad_enabled()
    assert model.training and torch.is_grad_enabled()
