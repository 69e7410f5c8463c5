"""The environment of a child: a few of the user's variables, a private home, and what the backend asks for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from autoresearch.core.errors import PrerequisiteError

ALLOWED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "CC",
    "CXX",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "TRITON_LIBCUDA_PATH",
    "TRITON_PTXAS_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "SYSTEMROOT",
)
"""Variables that a child inherits. None of them carries a key; these are names, not patterns."""

ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"
    f":glibc.malloc.mmap_threshold={32 * 2**20}:glibc.malloc.trim_threshold={16 * 2**30}"
}
"""Makes glibc use huge pages and keep freed memory. A step on a CPU takes and frees the same large blocks again and
again, and page faults were 8 to 18 % of its time. Other C libraries do not read it."""


def child_environment(home: str, temp: str) -> dict[str, str]:
    """Return the whole environment of a child, but for the variables that its backend asks for."""
    return {
        **{name: os.environ[name] for name in ALLOWED if name in os.environ},
        "HOME": home,
        "TMPDIR": temp,
        "XDG_CACHE_HOME": f"{home}/.cache",
        # Caches ask for a name; inside a sandbox the user has none.
        "USER": "trial",
        "LOGNAME": "trial",
        # The same order of sets in every child: a model built twice from one seed must be the same.
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **ALLOCATOR,
    }


def child_variables(backends: Mapping[str, str], slots: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the variables of the backend and of the slot, which wins; of two numbers of threads, take the smaller."""
    found = dict(backends)
    for name, value in slots:
        mine = found.get(name, "")
        found[name] = str(min(int(mine), int(value))) if mine.isdigit() and value.isdigit() else value
    return found


def load_runtime(backend: str) -> Any:
    """Return the backend's runtime module (see `backends.contract.Runtime`), which imports no framework by itself.

    Raises `PrerequisiteError` when there is no such backend or it cannot run here.
    """
    module = f"autoresearch.backends.{backend}.runtime"
    try:
        runtime: ModuleType = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise PrerequisiteError(f"there is no backend {backend!r} ({error}).") from error
    reason = runtime.unavailable()
    if reason is not None:
        raise PrerequisiteError(f"the {backend} backend cannot run here: {reason}")
    return runtime
