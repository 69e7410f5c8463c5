"""The code that PyTorch would generate for an H100: what it moves, launches and computes, read on a machine without."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prerequisites import lacking

ROOT = Path(__file__).parents[4]
TRAIN_FILE = ROOT / "backends" / "cuda" / "train.py"
WRAPPER = """
triton_poi_fused_pow_0 = async_compile.triton('triton_poi_fused_pow_0', '''
    tmp0 = libdevice.pow(tmp1, tmp2)
    inductor_meta={{'kernel_num_gb': 0.25}}
''', device_str='cuda')
triton_red_fused_sum_1 = async_compile.triton('triton_red_fused_sum_1', '''
    tmp0 = tl_math.exp(tmp1)
    inductor_meta={{'kernel_num_gb': 1.5e-1}}
''', device_str='cuda')
        buf0 = empty_strided_cuda((8192, 512), (512, 1), torch.{dtype})
        extern_kernels.mm(arg0, arg1, out=buf0)
        triton_poi_fused_pow_0.run(buf0, 4)
        triton_red_fused_sum_1.run(buf0, 4)
        triton_red_fused_sum_1.run(buf0, 4)
"""


@pytest.fixture
def codegen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.codegen as module

    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def test_bytes_are_counted_by_launch_and_slow_functions_and_wide_buffers_are_found(codegen) -> None:
    code = WRAPPER.replace("{{", "{").replace("}}", "}")
    report = codegen.read_code({"forward": code.replace("{dtype}", "float32")}, chunk_elements=8192 * 512)
    assert report.gigabytes == pytest.approx(0.25 + 2 * 0.15)
    assert (report.launches, report.library_calls) == (3, 1)
    assert report.slow == {"forward: triton_poi_fused_pow_0": ["pow"]}
    assert report.wide == ["forward: (8192, 512)"]
    assert report.largest[0] == (0.3, "forward: triton_red_fused_sum_1")
    halves = codegen.read_code({"forward": code.replace("{dtype}", "bfloat16")}, chunk_elements=8192 * 512)
    assert halves.wide == []


def test_the_train_files_own_kernel_counts_what_it_reads_and_writes(codegen) -> None:
    code = """
cross_entropy_row_0 = async_compile.triton('cross_entropy_row', '''
    inductor_meta={'kernel_num_gb': 0.0}
''', device_str='cuda')
            cross_entropy_row_0.run(buf1, buf2, buf3, 64, stream=raw_stream0)
            cross_entropy_row_0.run(buf4, buf2, buf3, 64, stream=raw_stream0)
"""
    report = codegen.read_code({"forward": code}, chunk_elements=8192 * 8192)
    assert report.launches == 2
    assert report.gigabytes == pytest.approx(2 * 2 * 2 * 8192 * 8192 / 1e9)


def test_what_exceeds_a_limit_is_named(codegen) -> None:
    within = codegen.Report(graphs=1, launches=1, gigabytes=1.0)
    assert codegen.faults(within) == []
    beyond = codegen.Report(2, 10**6, 0, 10.0**6, {"forward: k": ["sin"]}, ["forward: (8, 8)"])
    assert len(codegen.faults(beyond)) == 5
    spilling = codegen.Report(
        graphs=1, spills={"sm_90 few": codegen.SPILL_LIMIT, "sm_100 many": codegen.SPILL_LIMIT + 1}
    )
    assert codegen.faults(spilling) == [f"sm_100 many spills {codegen.SPILL_LIMIT + 1} bytes a thread"]
    slow = codegen.Report(graphs=1, code_seconds=codegen.CODE_SECONDS + 1, kernel_seconds={90: 1e4, 100: 1.0})
    assert [fault.split()[0] for fault in codegen.faults(slow)] == ["generating", "compiling"]


def test_a_tile_of_the_mlp_counts_what_it_reads_beside_its_product(codegen) -> None:
    code = """
mlp_tile_0 = async_compile.triton('mlp_tile', '''
    inductor_meta={'kernel_num_gb': 0.0}
''', device_str='cuda')
            mlp_tile_0.run(buf1, buf2, buf3, 64, stream=raw_stream0)
"""
    forward = codegen.read_code({"forward": code}, 8192 * 512, hidden_elements=10**9)
    backward = codegen.read_code({"backward": code}, 8192 * 512, hidden_elements=10**9)
    assert (forward.gigabytes, backward.gigabytes) == (0, 2)


def test_kernels_that_differ_in_their_names_alone_are_compiled_once_and_for_the_card_that_is_asked_for(codegen) -> None:
    from benchmarks import _compiled_kernels as kernels

    source = "device=DeviceProperties(type='cuda', cc=90, major=9, warp_size=32)\ndef {name}(): {body}"
    code = "\n".join(
        f"{name} = async_compile.triton('{name}', '''{source.format(name=name, body=body)}''', device_str='cuda')"
        for name, body in (("mul_0", 1), ("mul_1", 1), ("add_2", 2))
    )
    found = list(kernels.distinct({"forward": code, "backward": code}))
    assert [name for name, _, _ in found] == ["forward_mul_0", "forward_add_2"]
    assert "cc=100, major=10," in kernels.for_card(found[0][2], 100)


@pytest.mark.slow
def test_the_step_for_an_h100_stays_within_its_limits(tmp_path) -> None:
    if importlib.util.find_spec("triton") is None or shutil.which("g++") is None:
        lacking("needs triton and g++: pip install -c constraints.txt triton")
    answer = tmp_path / "report.json"
    options = ["--depth", "2", "--compile", "90", "100", "--answer", str(answer), "--check"]
    command = [sys.executable, "-m", "benchmarks.codegen", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    report = json.loads(answer.read_text())
    assert report["graphs"] == 1
    assert min(report["kernels"].values()) > 20


LOADED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("train", sys.argv[1])
train = importlib.util.module_from_spec(spec)
sys.modules["train"] = train
spec.loader.exec_module(train)
print(train.load_flash_3().keywords["flash"](1, 2, 3))
"""
METADATA = {"id": "flash", "name": "flash-attn3", "version": 1, "license": "BSD-3-Clause", "python-depends": []}


@pytest.mark.skipif(importlib.util.find_spec("kernels") is None, reason="needs the package kernels")
def test_the_installed_loader_finds_the_pinned_files_without_a_network(tmp_path) -> None:
    variant = tmp_path / "build" / "torch-universal"
    variant.mkdir(parents=True)
    (variant / "__init__.py").write_text("def flash_attn_func(*parts, **options): return sum(parts)")
    (variant / "metadata.json").write_text(json.dumps({**METADATA, "backend": {"type": "cpu"}}))
    # As `runtime.launch_environment` names the folder that `ar prepare --kernel` has filled.
    environment = {**os.environ, "LOCAL_KERNELS": f"kernels-community/flash-attn3={tmp_path}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOADED, str(TRAIN_FILE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "6\n", done.stderr[-2000:]


def loads_of_kernels() -> list[ast.Call]:
    """The train file's calls of `get_kernel`."""
    tree = ast.parse(TRAIN_FILE.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "get_kernel"]


def test_a_kernel_is_loaded_by_a_version_or_a_revision_and_never_the_newest() -> None:
    assert loads_of_kernels()
    for call in loads_of_kernels():
        assert {"version", "revision"} & {keyword.arg for keyword in call.keywords}


@pytest.mark.skipif(importlib.util.find_spec("kernels") is None, reason="needs the package kernels")
def test_the_installed_loader_takes_the_train_files_arguments() -> None:
    from kernels import get_kernel

    for call in loads_of_kernels():
        values = [ast.literal_eval(argument) for argument in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        inspect.signature(get_kernel).bind(*values, **named)


WITHOUT_A_CARD = {"FLASH_ATTENTION_ARCH": "sm_90", "CUTE_DSL_ARCH": "sm_90a", "FLASH_ATTENTION_NUM_SMS": "132"}
"""Environment in which the package flash-attn-4 compiles for an H100 that is not there."""
COMPILED_FLASH_4 = """
import importlib.util, sys
import torch
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensorMode
spec = importlib.util.spec_from_file_location("train", sys.argv[1])
train = importlib.util.module_from_spec(spec)
sys.modules["train"] = train
spec.loader.exec_module(train)
train.load_flash_4()
forward, backward = (OPDEFS[f"ar::flash_4{way}"]._init_fn for way in ("", "_backward"))
with FakeTensorMode():
    # Slices of one tensor, as the step has them.
    q, k = torch.empty(2, 512, 2, 5, 128, dtype=torch.bfloat16, device="cuda").unbind(2)
    v = torch.empty(2, 512, 5, 128, dtype=torch.bfloat16, device="cuda")
    for window in (256, 512):
        y, log_sums = forward(q, k, v, window, 0.1)
        grads = backward(torch.empty_like(y), q, k, v, y, log_sums, window, 0.1)
        print([tuple(part.shape) for part in (y, log_sums, *grads)], all(part.is_contiguous() for part in grads))
"""


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="needs the package flash-attn-4")
def test_the_installed_flash_attention_4_compiles_for_an_h100_with_the_train_files_arguments() -> None:
    command = [sys.executable, "-c", COMPILED_FLASH_4, str(TRAIN_FILE)]
    done = subprocess.run(command, env={**os.environ, **WITHOUT_A_CARD}, capture_output=True, text=True, check=False)
    rows, sums = (2, 512, 5, 128), (2, 5, 512)
    assert done.stdout == f"{[rows, sums, rows, rows, rows]} True\n" * 2, done.stderr[-2000:]
