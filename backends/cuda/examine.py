"""Checks of PyTorch for `ar doctor`, in a sandbox like a trial's. Part of the runtime; imported only then."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from autoresearch.backends.contract import Remark

MODULE_SOURCE = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "lantern", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_lantern(void) { return PyModule_Create(&definition); }
"""
COMPILERS = ("gcc", "clang", "cc")
COMPILE_SECONDS = 60.0
SDPA_KERNELS = {0: "plain products", 1: "FlashAttention-2", 2: "memory-efficient attention", 3: "cuDNN's attention"}
"""Values of PyTorch's `SDPBackend`, as `torch._fused_sdp_choice` returns them."""
LOW_MEMORY_SHARE = 0.9
"""Free share of a card's memory below which somebody else is using it."""


def examine(module: Any) -> Iterator[Remark]:
    """Say how the train file will attend, and try the compiler, the driver's library and the card's memory."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if module is not None:
        yield attention(module, kind)
    yield extension()
    if kind == "cuda":
        yield driver_library()
        yield cudnn()
        yield free_memory()
    elif torch.version.cuda or torch.version.hip:
        yield Remark("gpu", "warn", f"this PyTorch is built for GPUs and finds none: {why_no_gpu()}")


def attention(module: Any, kind: str) -> Remark:
    """Ask the train file's own choice, `fastest_attention`, which also says why it is no faster one."""
    choose = getattr(module, "fastest_attention", None)
    if choose is None:
        return Remark("attention", "pass", "the train file does not say (no function fastest_attention)")
    try:
        dtype = module.compute_dtype(kind) if hasattr(module, "compute_dtype") else torch.float32
        _, name = choose(torch.device(kind), dtype, kind == "cuda")
    except Exception as error:
        return Remark("attention", "warn", f"fastest_attention fails: {type(error).__name__}: {error}")
    if kind == "cuda" and "(no " in name:
        name = f"{sdpa_kernel(module, dtype)} in full windows, {name}"
    could_be_faster = kind == "cuda" and "(no " in name and torch.cuda.get_device_capability()[0] in (9, 10)
    fix = 'install FlashAttention-4: pip install -c constraints.txt -e ".[flash]"' if could_be_faster else None
    return Remark("attention", "warn" if could_be_faster else "pass", f"{name}, in {dtype}", fix)


def sdpa_kernel(module: Any, dtype: torch.dtype) -> str:
    """Name the kernel that PyTorch chooses for causal attention here: cuDNN, FlashAttention-2 and others."""
    q, k, v = torch.randn(3, 1, 2, 256, getattr(module, "HEAD_DIM", 128), device="cuda").to(dtype)
    try:
        choice = torch._fused_sdp_choice(q, k, v, None, 0.0, True)
        return SDPA_KERNELS.get(choice, f"SDPA's kernel {choice}")
    except Exception as error:  # a private function of PyTorch's
        return f"SDPA (which kernel is not known: {type(error).__name__})"


def extension() -> Remark:
    """Compile and import a module of Python's in C, as Triton does for every launcher and Inductor for every kernel."""
    compiler = os.environ.get("CC") or next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return Remark("Python.h", "warn", "no C compiler: torch.compile will fail", "install gcc")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "lantern.c"), Path(folder, "lantern.so")
        source.write_text(MODULE_SOURCE, encoding="utf-8")
        include = sysconfig.get_paths()["include"]
        command = [compiler, str(source), "-shared", "-fPIC", f"-I{include}", "-o", str(library)]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Remark("Python.h", "warn", f"{compiler} does not run: {error}", "install gcc")
        if answer.returncode:
            lines = [line for line in answer.stderr.splitlines() if "error" in line] or [f"exit {answer.returncode}"]
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            return Remark(
                "Python.h", "warn", f"no extension can be compiled, so torch.compile will fail: {lines[0].strip()}",
                f"install Python's headers (Debian: apt install {version}-dev)",
            )  # fmt: skip
        try:
            found = importlib.util.spec_from_file_location("lantern", library)
            assert found is not None
            importlib.util.module_from_spec(found)
        except ImportError as error:
            return Remark("Python.h", "warn", f"a compiled extension cannot be loaded: {error}")
    return Remark("Python.h", "pass", f"{compiler} compiles extensions for this Python")


def driver_library() -> Remark:
    """Find libcuda as Triton will: TRITON_LIBCUDA_PATH, else the loader's cache, else LD_LIBRARY_PATH."""
    try:
        driver = importlib.import_module("triton.backends.nvidia.driver")
        folders = driver.libcuda_dirs()
    except ImportError as error:
        return Remark("libcuda", "warn", f"Triton is missing, so nothing is compiled: {error}", "pip install triton")
    except Exception as error:  # an assertion, with a page of advice
        fix = "set TRITON_LIBCUDA_PATH to the folder of libcuda.so.1, or add that folder to /etc/ld.so.conf.d"
        return Remark("libcuda", "fail", f"Triton does not find it: {str(error).splitlines()[0][:200]}", fix)
    return Remark("libcuda", "pass", f"{', '.join(map(str, folders))}")


def cudnn() -> Remark:
    """Compare the cuDNN that was loaded with the one that this PyTorch was built with."""
    try:
        version = torch.backends.cudnn.version()
    except RuntimeError as error:  # torch compares the two itself
        return Remark("cudnn", "fail", str(error).splitlines()[0], "take CUDA's folders out of LD_LIBRARY_PATH")
    return Remark("cudnn", "pass", f"version {version}")


def free_memory() -> Remark:
    """Tell how much of the card's memory is free."""
    free, total = torch.cuda.mem_get_info()
    detail = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < LOW_MEMORY_SHARE * total:
        return Remark("gpu memory", "warn", detail, "end the other programs that use the card (nvidia-smi lists them)")
    return Remark("gpu memory", "pass", detail)


def why_no_gpu() -> str:
    """Return in words why this process has no GPU: what the framework says, or what the driver's library answers."""
    try:
        torch.cuda.init()
    except Exception as error:
        return str(error).splitlines()[0][:200]
    try:
        code = ctypes.CDLL("libcuda.so.1").cuInit(0)
    except OSError as error:
        return str(error)
    return f"cuInit answers {code}"
