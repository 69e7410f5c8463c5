"""`python -m benchmarks [--only NAME]`: run every benchmark and write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
PACKAGES = ("torch", "mlx", "numpy", "sentencepiece", "optuna")


def main() -> int:
    """Run, show, write. Exit code 1 when a benchmark failed."""
    found = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=found, action="append", help="this one; may be repeated")
    chosen = parser.parse_args().only or found
    sections, failed = read_sections(), []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            rows = importlib.import_module(f"benchmarks.{name}").run()
        except Exception as error:  # one that cannot run here must not hide the others
            failed.append(name)
            print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        sections[name] = section(name, rows, time.monotonic() - started)
        print("\n".join(f"  {row['name']}: {figure(row['median'])} {row['unit']}" for row in rows))
    known = [sections[name] for name in sorted(sections) if name in found]
    RESULTS.write_text("# Benchmarks\n\nWritten by `make bench`.\n\n" + "\n".join(known), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def read_sections() -> dict[str, str]:
    """What RESULTS.md holds already, by benchmark: what is not run now stays."""
    if not RESULTS.is_file():
        return {}
    parts = RESULTS.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.split("\n", 1)[0].strip(): f"## {part.rstrip()}\n" for part in parts}


def section(name: str, rows: list[dict[str, Any]], seconds: float) -> str:
    """One benchmark as Markdown."""
    module = importlib.import_module(f"benchmarks.{name}")
    lines = ["| what | median | unit | note |", "|---|---:|---|---|"]
    lines += [f"| {row['name']} | {figure(row['median'])} | {row['unit']} | {row.get('note', '')} |" for row in rows]
    when = f"{datetime.date.today():%Y-%m-%d}, {commit()}, {machine()}; took {seconds:.0f} s."
    return f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{when}\n\n" + "\n".join(lines) + "\n"


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
