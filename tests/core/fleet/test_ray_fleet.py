"""The test of a Ray cluster of two nodes, in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prerequisites import lacking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PASSED, FAILED = 100, 101
TIMEOUT_SECONDS = 500
ALONE = "import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(100 + code)"
"""Tests, and no waiting for what Ray still wants to do when an interpreter ends: it has hung there. Exit codes of 100
and more are pytest's, for Ray's core ends a process with 1, as a failed test would."""


def test_a_fleet_of_two_nodes(tmp_path: Path) -> None:
    """Run it again where Ray's core ended or hung the process: it ends it when it thinks that its own node is dead.

    That says nothing about this project, and would take all tests of this process with it. A failed check is final.
    """
    if importlib.util.find_spec("ray") is None:
        lacking("Ray is not installed (pip install 'ray>=2.50')")
    scenario = Path(__file__).with_name("two_ray_nodes.py")
    for attempt in ("first", "second", "third"):
        arguments = ["-v", "-p", "no:xdist", "--basetemp", str(tmp_path / attempt), str(scenario)]
        code, printed = run_alone([sys.executable, "-u", "-c", ALONE, *arguments], tmp_path / f"{attempt}.log")
        if code in (PASSED, FAILED):
            break
    assert code == PASSED, f"ended with {code}\n{printed}"


def run_alone(command: list[str], log: Path) -> tuple[int | None, str]:
    """Run a command in a session of its own. Returns its exit code, None after a timeout, and what it printed."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | None = process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_text()[-25_000:]
