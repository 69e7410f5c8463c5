from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from prerequisites import lacking

from autoresearch.backends.mlx import runtime
from autoresearch.core.config import load_presets

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="MLX brings its own BLAS only on Linux")


def run_python(code: str, environment: dict[str, str] | None = None) -> str:
    env = {**os.environ, **(environment or {})}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_questions_before_the_launch_do_not_import_mlx() -> None:
    code = "import sys; from autoresearch.backends.mlx import runtime as r; r.unavailable(); r.launch_environment()"
    assert run_python(code + "; print('mlx.core' in sys.modules)").strip() == "False"


def test_it_is_available_here() -> None:
    assert runtime.unavailable() is None


def test_a_missing_mlx_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'mlx[cpu]'" in str(runtime.unavailable())


def test_an_intel_mac_is_sent_to_the_other_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    assert "--backend cuda" in str(runtime.unavailable())


@linux_only
def test_the_launch_environment_puts_openblas_in_front_of_the_bundled_blas() -> None:
    environment = dict(runtime.launch_environment())
    if not environment:
        lacking("no OpenBLAS found: apt install libopenblas0-pthread")
    code = """
import json
from pathlib import Path
import mlx.core as mx
from autoresearch.backends.mlx import runtime
from autoresearch.core.config import load_presets
a = mx.ones((256, 256)); mx.eval(a @ a)
maps = Path("/proc/self/maps").read_text()
print(json.dumps([runtime.openblas_in_use(), "libopenblas" in maps, runtime.detect().framework]))
"""
    assert json.loads(run_python(code, {"LD_PRELOAD": ""}))[:2] == [False, False]
    in_use, mapped, framework = json.loads(run_python(code, environment))
    assert in_use and mapped
    assert framework.endswith("(OpenBLAS preloaded)")


@pytest.mark.parametrize(
    "place",
    [
        f"usr/lib/{platform.machine()}-linux-gnu/openblas-pthread/libopenblas.so.0",
        f"usr/lib/{platform.machine()}-linux-gnu/libopenblas.so.0",
        "usr/lib64/libopenblasp.so.0",
        "usr/lib/libopenblas.so.0",
    ],
)
def test_openblas_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    assert runtime.find_openblas(tmp_path) is None
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert runtime.find_openblas(tmp_path) == tmp_path / place


@pytest.mark.parametrize(
    ("chip", "memory_gb", "tier"),
    [
        ("Apple M4 Max", 128, "mac128"),
        ("Apple M3 Ultra", 512, "mac128"),
        ("Apple M2 Max", 96, "mac64"),
        ("Apple M4 Max", 64, "mac64"),
        ("Apple M1 Max", 32, "mac-max"),
        ("Apple M1 Max", None, "mac-max"),
        ("Apple M4 Pro", 64, "mac"),
        ("Apple M1", 16, "mac"),
        ("Apple M2", 8, "mac8"),
        ("Apple M4", None, "mac"),
    ],
)
def test_a_chip_gets_the_tier_of_its_size_and_memory(chip: str, memory_gb: int | None, tier: str) -> None:
    assert runtime.apple_tier(chip, memory_gb and 1024.0 * memory_gb) == tier
    assert tier in load_presets(Path(runtime.__file__).with_name("presets.toml"))


def test_tokens_arrive_as_integers_and_the_host_array_may_be_reused() -> None:
    host = np.array([[1, 65535], [2, 3]], dtype=np.uint16)
    on_device = runtime.to_device(host)
    host[:] = 0
    assert on_device.dtype == mx.int32
    assert runtime.to_numpy(on_device).tolist() == [[1, 65535], [2, 3]]


def test_floating_types_come_back_as_float32() -> None:
    assert runtime.to_numpy(mx.array([1.5], dtype=mx.bfloat16)).dtype == np.float32
    assert runtime.to_numpy(mx.array([1.5], dtype=mx.float16)).tolist() == [1.5]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_nll_is_minus_the_log_of_the_softmax_in_float32(dtype: mx.Dtype) -> None:
    draw = np.random.default_rng(0)
    logits = mx.array(draw.normal(0, 8, (3, 5, 17)).astype(np.float32)).astype(dtype)
    targets = draw.integers(0, 17, (3, 5))
    exact = np.array(logits.astype(mx.float32)).astype(np.float64)
    log_sum = np.log(np.exp(exact).sum(-1))
    expected = log_sum - np.take_along_axis(exact, targets[..., None], -1)[..., 0]
    got = runtime.nll(logits, mx.array(targets))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_nll_survives_logits_that_would_overflow_an_exponential() -> None:
    logits = mx.array([[[1000.0, 0.0]]])
    np.testing.assert_allclose(runtime.nll(logits, mx.array([[1]])), [[1000.0]])


def test_on_a_gpu_nll_is_the_same_and_no_token_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    logits, targets = mx.array(draw.normal(0, 8, (3, 5, 17)).astype(np.float32)), mx.array(draw.integers(0, 17, (3, 5)))
    on_cpu = runtime.nll(logits, targets)
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=mx.DeviceType.gpu))
    np.testing.assert_allclose(runtime.nll(logits, targets), on_cpu, atol=1e-5)
    np.testing.assert_allclose(runtime.nll(logits * 0 + 1e30, targets), np.log(17), atol=1e-5)


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 4), nn.Linear(3, 4)
    runtime.save_weights(first, tmp_path / "w.safetensors")
    runtime.load_weights(second, tmp_path / "w.safetensors")
    assert runtime.to_numpy(second.weight).tolist() == runtime.to_numpy(first.weight).tolist()
    assert runtime.to_numpy(second.bias).tolist() == runtime.to_numpy(first.bias).tolist()


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    runtime.save_weights(nn.Linear(3, 4), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="weight has shape"):
        runtime.load_weights(nn.Linear(4, 4), tmp_path / "w.safetensors")


def test_weights_of_other_names_are_refused(tmp_path: Path) -> None:
    runtime.save_weights(nn.Linear(3, 4), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing \[\], unknown \['bias'\]"):
        runtime.load_weights(nn.Linear(3, 4, bias=False), tmp_path / "w.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        runtime.load_weights(nn.Linear(3, 4), tmp_path / "w.safetensors")


def test_a_shared_parameter_counts_once() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False))
    assert runtime.parameter_count(model) == 24
    model.layers[1].weight = model.layers[0].weight
    assert runtime.parameter_count(model) == 12


def test_inference_leaves_the_mode_as_it_was() -> None:
    model = nn.Linear(2, 2)
    with runtime.inference(model):
        assert not model.training
    assert model.training


def test_peak_memory_starts_anew() -> None:
    mx.eval(mx.zeros((1024, 1024)))
    assert runtime.peak_memory_mb() >= 4
    runtime.reset_peak_memory()
    assert runtime.peak_memory_mb() < 4


def test_a_seed_repeats_the_draws() -> None:
    draws = []
    for _ in range(2):
        runtime.seed(5)
        draws.append(runtime.to_numpy(mx.random.normal((4,))).tolist())
    assert draws[0] == draws[1]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac computes on its GPU")
def test_a_linux_cpu_is_described() -> None:
    device = runtime.detect()
    assert (device.kind, device.precision, device.tier) == ("cpu", "fp32", "cpu")
    assert device.framework.startswith("mlx ")
