"""`make cheats`: every cheat with the gate on and off, every honest variant; exit status 1 when one goes wrong.

python tests/cheats [--only WORDS] [--seeds N] [--backend null|cuda|mlx] [--isolation LEVEL]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import bending_time  # noqa: E402
import breaking_out  # noqa: E402
import frameworks  # noqa: E402
import honest  # noqa: E402
import looking_ahead  # noqa: E402
from arena import NULL_SOURCE, Arena, Outcome  # noqa: E402
from cheating import Cheat  # noqa: E402
from conftest import small_corpus  # noqa: E402

from autoresearch.core.trial.sandbox import best_level  # noqa: E402

GROUPS = {"breaking out": breaking_out, "bending time": bending_time, "looking ahead": looking_ahead}


def main() -> int:
    """Print the tables and the sum."""
    parser = argparse.ArgumentParser(prog="make cheats", description=__doc__)
    parser.add_argument("--only", default="", help="only names that hold these words")
    parser.add_argument("--seeds", type=int, default=1, help="how often each honest variant runs")
    parser.add_argument("--backend", choices=("null", "cuda", "mlx"), default="null")
    parser.add_argument("--isolation", choices=("bubblewrap", "landlock", "process"))
    options = parser.parse_args()
    os.environ["SOME_API_KEY"] = "sk-very-secret"
    level = options.isolation or best_level()
    print(f"isolation level {level}, backend {options.backend}\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        arena = Arena(small_corpus(place / "corpus", place / "data"), place)
        try:
            run = null_rows if options.backend == "null" else framework_rows
            wrong = [words for words in run(arena, options, level) if words]
        finally:
            arena.close()
    print(f"\n{len(wrong)} went wrong" if wrong else "\nall as they should be")
    for words in wrong:
        print(f"  {words}")
    return 1 if wrong else 0


def null_rows(arena: Arena, options: argparse.Namespace, level: str) -> Iterator[str]:
    """The whole corpus on the null backend. Yields what is wrong with each trial, or nothing."""
    yield passed(arena.trial("calibration", NULL_SOURCE, calibrate=True, isolation=level))
    print()
    for title, module in GROUPS.items():
        print(f"## {title}\n")
        for cheat in module.CHEATS:
            if options.only in cheat.name:
                yield from both(arena, cheat, level)
        print()
    print("## honest\n")
    for name, code in honest.NULL.items():
        if options.only in name:
            for seed in range(options.seeds):
                yield passed(arena.trial(name, f"{NULL_SOURCE}\n\n{code}\n", seed=seed, isolation=level))


def both(arena: Arena, cheat: Cheat, level: str) -> Iterator[str]:
    """With the gate, where it must refuse, and without."""
    if cheat.gate:
        yield stopped(arena.run(cheat, gate=True, isolation=level), "gate", "on")
    expected = cheat.below if cheat.layer == "sandbox" and level == "process" else cheat.layer
    outcome = arena.run(cheat, gate=False, isolation=level)
    if level == "landlock" and outcome.layer == "sandbox":  # walls where bubblewrap gives an empty folder
        expected = "sandbox"
    yield stopped(outcome, expected, "off", level == "process")


def framework_rows(arena: Arena, options: argparse.Namespace, level: str) -> Iterator[str]:
    """What can be asked of every framework."""
    yield passed(frameworks.run_honest(arena, options.backend, "the baseline", level, 0, calibrate=True))
    print()
    for cheat in frameworks.cheats(options.backend):
        if options.only in cheat.name:
            yield stopped(frameworks.run(arena, options.backend, cheat, level), cheat.layer, "off")
    print("\n## honest\n")
    for name in honest.CONSTANTS:
        if options.only in name:
            for seed in range(options.seeds):
                yield passed(frameworks.run_honest(arena, options.backend, name, level, seed))


def stopped(outcome: Outcome, expected: str, gate: str, weak: bool = False) -> str:
    """Print a cheat's row; in words what is wrong with it. At a weak level any outcome is only shown."""
    show(outcome, f"gate {gate}")
    if weak:
        return ""
    if outcome.layer != expected:
        return f"{outcome.name}: {outcome.layer} instead of {expected}: {outcome.result.reason}"
    return f"{outcome.name}: left {', '.join(outcome.left)}" if outcome.left else ""


def passed(outcome: Outcome) -> str:
    """Print an honest variant's row; in words what is wrong with it."""
    show(outcome, "honest")
    wrong = outcome.result.status != "ok" or outcome.left
    return f"{outcome.name}: {outcome.result.reason} {outcome.left}" if wrong else ""


def show(outcome: Outcome, kind: str) -> None:
    """One row: kind, layer, seconds, name, reason."""
    result, audit = outcome.result, outcome.result.audit
    reason = result.reason or f"val_bpb {result.val_bpb:.3f}"
    if result.status == "ok" and audit is not None:
        reason += f", audit: largest {audit.max_abs:.1g}, mean {audit.mean_diff:+.1g}"
    left = f" LEFT: {', '.join(outcome.left)}" if outcome.left else ""
    layer = "passed" if kind == "honest" and result.status == "ok" else outcome.layer
    print(f"{kind:9} {layer:8} {outcome.seconds:5.1f} s  {outcome.name:58} {reason[:110]}{left}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
