"""How long the command line takes to answer. The goal for `ar --help` is 0.3 s."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPEATS = 15


def run() -> list[dict[str, Any]]:
    """Seconds from the start of the process to its end."""
    return [
        measure("ar --help", ["--help"]),
        measure("ar --version", ["--version"]),
        measure("a mistyped command", ["trian"]),
    ]


def measure(name: str, arguments: list[str]) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("ar")), *arguments]
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        seconds.append(time.perf_counter() - started)
    note = f"{REPEATS} runs, {min(seconds):.3f} to {max(seconds):.3f}"
    return {"name": name, "median": statistics.median(seconds), "unit": "s", "note": note}
