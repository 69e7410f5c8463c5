"""`python -m benchmarks [--only NAME]`: run the CPU-sized benchmarks, or those named; write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
PACKAGES = ("torch", "mlx", "numpy", "sentencepiece", "optuna")

BY_HAND = {
    "audit": "5 minutes",
    "audit_cost": "10 minutes",
    "chaos": "a minute for ten kills",
    "codegen": "2 minutes, triton",
    "common_work": "4 minutes, a GPU or quiet cores",
    "demo": "half an hour a seed",
    "faults": "20 minutes",
    "first_light": "35 minutes, a GPU or a Mac",
    "fleet": "10 minutes",
    "fleet_ray": "15 minutes, Ray",
    "futility": "an hour and a half",
    "idle": "5 minutes",
    "judge": "an hour",
    "judge_frontier": "an hour",
    "large_weights": "1 minute",
    "outside_the_clock": "6 minutes",
    "outside_agents": "15 minutes",
    "page": "2 minutes, a headless Chromium",
    "real_judge": "hours",
    "search": "20 minutes",
    "search_task": "hours",
    "short_trials": "an hour and a half",
    "train_files": "10 minutes",
    "waves": "a minute",
}
"""Benchmarks that `make bench` leaves out, and about how long they take: `python -m benchmarks --only NAME`."""
BUSY_LOAD = 1.5
"""Per core. A benchmark just before leaves about one."""


def main() -> int:
    """Run, show, write. Exit code 1 when a benchmark failed."""
    found = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=found, action="append", help="this one; may be repeated")
    chosen = parser.parse_args().only or [name for name in found if name not in BY_HAND]
    sections, failed = read_sections(), []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        started, before = time.monotonic(), load_before()
        try:
            rows = importlib.import_module(f"benchmarks.{name}").run()
        except Exception as error:  # one that cannot run here must not hide the others
            failed.append(name)
            print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        sections[name] = section(name, rows, time.monotonic() - started, before)
        print("\n".join(f"  {row['name']}: {figure(row['median'])} {row['unit']}" for row in rows))
        # After each: what was measured is not lost when a later one is stopped.
        known = [sections[other] for other in sorted(sections) if other in found]
        RESULTS.write_text("\n".join([index(found, sections), *known]), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def index(found: list[str], measured: Mapping[str, str]) -> str:
    """What there is, who runs it, and whether its figures are below."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`, and by `python -m benchmarks --only NAME` for what takes long. Medians; the machine",
        "stands with each. What was measured while others used the machine says so: there, only ratios mean something.",
        "",
        "| benchmark | measures | run by |",
        "|---|---|---|",
    ]
    for name in found:
        title = f"[{name}](#{name})" if name in measured else name
        who = f"hand, {BY_HAND[name]}" if name in BY_HAND else "`make bench`"
        lines.append(f"| {title} | {first_sentence(name)} | {who} |")
    return "\n".join(lines) + "\n"


def first_sentence(name: str) -> str:
    """Of the benchmark's own description, read without importing it."""
    words = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(words.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def read_sections() -> dict[str, str]:
    """What RESULTS.md holds already, by benchmark: what is not run now stays."""
    if not RESULTS.is_file():
        return {}
    parts = RESULTS.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.split("\n", 1)[0].strip(): f"## {part.rstrip()}\n" for part in parts}


def section(name: str, rows: list[dict[str, Any]], seconds: float, load: float) -> str:
    """One benchmark as Markdown."""
    module = importlib.import_module(f"benchmarks.{name}")
    lines = ["| what | median | unit | note |", "|---|---:|---|---|"]
    lines += [f"| {row['name']} | {figure(row['median'])} | {row['unit']} | {row.get('note', '')} |" for row in rows]
    busy = f" Others wanted the machine too (load {load:.0f})." if load > BUSY_LOAD else ""
    when = f"{datetime.date.today():%Y-%m-%d}, {commit()}, {machine()}; took {seconds:.0f} s.{busy}"
    return f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{when}\n\n" + "\n".join(lines) + "\n"


def load_before() -> float:
    """Processes that want a core, over the last minute and per core, before the benchmark adds its own."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def figure(value: float) -> str:
    """Four significant digits, without an exponent where it can be read without one."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def commit() -> str:
    """The commit that was measured; marked when the tree has changes."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "no commit"


def machine() -> str:
    """Processor, cores, system, and the versions that matter."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = [processor(), f"{cores} cores", platform.system(), f"Python {platform.python_version()}", *versions]
    return ", ".join(words)


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
