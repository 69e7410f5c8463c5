"""The code that PyTorch would generate for an H100: what it moves, launches and computes, read on a machine without."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
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


@pytest.mark.slow
def test_the_step_for_an_h100_stays_within_its_limits(tmp_path) -> None:
    if importlib.util.find_spec("triton") is None or shutil.which("g++") is None:
        lacking("needs triton and g++: pip install -c constraints.txt triton")
    answer = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.codegen", "--depth", "2", "--answer", str(answer), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert json.loads(answer.read_text())["graphs"] == 1


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
