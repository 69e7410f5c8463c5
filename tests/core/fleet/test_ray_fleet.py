"""The test of a Ray cluster of two nodes, in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from prerequisites import lacking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1300)]

PASSED, FAILED = 0, 1
TIMEOUT_SECONDS = 600


def test_a_fleet_of_two_nodes(tmp_path: Path) -> None:
    """Run it once more where Ray's core ended the process: it does so when it thinks that its own node is dead.

    That says nothing about this project, and would take all tests of this process with it. A failed check is final.
    """
    if importlib.util.find_spec("ray") is None:
        lacking("Ray is not installed (pip install 'ray>=2.50')")
    scenario = Path(__file__).with_name("two_ray_nodes.py")
    for attempt in ("first", "second"):
        alone = [sys.executable, "-m", "pytest", "-p", "no:xdist"]
        command = [*alone, "--basetemp", str(tmp_path / attempt), str(scenario)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        if done.returncode in (PASSED, FAILED):
            break
    assert done.returncode == PASSED, done.stdout[-20_000:] + done.stderr[-5_000:]
