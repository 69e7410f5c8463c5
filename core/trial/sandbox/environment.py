"""What a child sees of the user's environment: an allow-list, and a private home."""

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
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "SYSTEMROOT",
)
"""Nothing in it can carry a key: names are listed, not patterns."""

ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"
    f":glibc.malloc.mmap_threshold={32 * 2**20}:glibc.malloc.trim_threshold={16 * 2**30}"
}
"""Ask glibc for huge pages, and to keep what was freed. A step on a CPU takes and frees the same large blocks again and
again, and page faults were 8 to 18 % of its time. Other C libraries do not read it."""


def child_environment(home: str, temp: str) -> dict[str, str]:
    """The whole environment of a child, but for what its backend's runtime asks for."""
    return {
        **{name: os.environ[name] for name in ALLOWED if name in os.environ},
        "HOME": home,
        "TMPDIR": temp,
        "XDG_CACHE_HOME": f"{home}/.cache",
        # Caches ask for a name; inside a sandbox the user has none.
        "USER": "trial",
        "LOGNAME": "trial",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **ALLOCATOR,
    }


def child_variables(backends: Mapping[str, str], slots: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What the backend asks for, and what the slot says; of two numbers of threads the smaller one."""
    found = dict(backends)
    for name, value in slots:
        mine = found.get(name, "")
        found[name] = str(min(int(mine), int(value))) if mine.isdigit() and value.isdigit() else value
    return found


def load_runtime(backend: str) -> Any:
    """The backend's runtime module (see `backends.contract.Runtime`), which imports no framework by itself.

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
