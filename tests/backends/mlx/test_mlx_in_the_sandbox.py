from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from prerequisites import lacking

from autoresearch.backends.mlx import runtime
from autoresearch.core.trial.processes import Child, Launch
from autoresearch.core.trial.sandbox.levels import bubblewrap_status, open_sandbox

CODE = """
import mlx.core as mx
from autoresearch.backends.mlx import runtime
double = mx.compile(lambda x: mx.maximum(2 * x, 0) + x)
print("ANSWER", double(mx.ones((2, 2))).sum().item(), runtime.openblas_in_use())
"""


@pytest.mark.parametrize("level", ["process", "bubblewrap"])
def test_a_preloaded_openblas_and_the_compiler_work_inside(tmp_path: Path, level: str) -> None:
    if level == "bubblewrap" and not bubblewrap_status().available:
        lacking(str(bubblewrap_status().why_not))
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    environment = dict(runtime.launch_environment())
    child = Child(
        Launch("probe", [sys.executable, "-c", CODE], tmp_path, sandbox=open_sandbox(level), environment=environment)
    )
    try:
        said, until = b"", time.monotonic() + 120
        while time.monotonic() < until and child.returncode() is None:
            time.sleep(0.1)
        while chunk := child.read(child.log_fd):
            said += chunk
        assert f"ANSWER 12.0 {bool(environment)}" in said.decode()
        assert child.returncode() == 0
    finally:
        child.kill()
        child.close()
