"""`make cheats`: every cheat with the gate on and off, every honest variant; exit status 1 when one goes wrong.

python tests/cheats [--backend NAME|all] [--seeds N] [--only WORDS] [--isolation LEVEL] [--keep FILE] [--page FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "helpers")]

import honest  # noqa: E402
from arena import Arena, Outcome  # noqa: E402
from cheating import Cheat  # noqa: E402
from conftest import small_corpus  # noqa: E402
from corpus import cheats, sample  # noqa: E402
from in_a_run import run_of  # noqa: E402
from page import BACKENDS, Row, page  # noqa: E402

from autoresearch.core.errors import ArError  # noqa: E402
from autoresearch.core.trial.sandbox.levels import best_level  # noqa: E402

REASON_CHARACTERS = 100


def main() -> int:
    """Print the tables and the sum."""
    parser = argparse.ArgumentParser(prog="make cheats", description=__doc__)
    parser.add_argument("--only", default="", help="only names that hold these words")
    parser.add_argument("--seeds", type=int, default=1, help="how often each honest variant runs")
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    parser.add_argument("--isolation", choices=("bubblewrap", "landlock", "process"))
    parser.add_argument(
        "--keep", type=Path, help="add the rows to this file as JSON lines; those in it are not run again"
    )
    parser.add_argument("--page", type=Path, help="write all rows of --keep as a page of Markdown")
    options = parser.parse_args()
    if options.page is not None and options.keep is None:
        parser.error("--page needs --keep")
    os.environ["SOME_API_KEY"] = "sk-very-secret"
    level = options.isolation or best_level()
    rows: list[Row] = []
    for backend in BACKENDS if options.backend == "all" else (options.backend,):
        print(f"\n# {backend}, isolation level {level}\n")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            arena = Arena(small_corpus(place / "corpus", place / "data", (512, 400)), place, backend)
            try:
                rows += run(arena, options, level)
            finally:
                arena.close()
    if options.page is not None:
        options.page.write_text(page(list(kept(options.keep).values())), encoding="utf-8")
    return summarise(rows)


def run(arena: Arena, options: argparse.Namespace, level: str) -> list[Row]:
    """Every trial of one backend that has not been run, printed as it ends; and those that have."""
    backend = arena.dialect.backend
    done = {} if options.keep is None or not options.keep.exists() else kept(options.keep)
    found = []
    # The run's tolerances come from the honest baseline.
    print(honest_row(arena, honest.Variant("calibration"), level, 0, calibrate=True).shown(), flush=True)
    for kind, name, make in jobs(arena, options, level):
        row = done.get((backend, level, kind, name))
        if row is None:
            row = make()
            print(row.shown() + (f"   WRONG: {row.wrong}" if row.wrong else ""), flush=True)
            if options.keep is not None:
                with options.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
        found.append(row)
    return found


def jobs(arena: Arena, options: argparse.Namespace, level: str) -> Iterator[tuple]:
    """(kind, name, what makes its row) of every trial."""
    for cheat in cheats(arena.dialect.backend):
        if options.only not in cheat.name:
            continue
        if cheat.gate:
            yield "gate on", cheat.name, lambda cheat=cheat: cheat_row(arena, cheat, level, gate=True)
        yield "gate off", cheat.name, lambda cheat=cheat: cheat_row(arena, cheat, level, gate=False)
    for seed in range(options.seeds):
        for variant in honest.variants(arena.dialect.backend):
            if options.only in variant.name:
                make = lambda variant=variant, seed=seed: honest_row(arena, variant, level, seed)  # noqa: E731
                yield f"honest {seed}", variant.name, make
    if arena.dialect.backend == "null" and not options.only:
        yield "a run", "one cheat after the other, and then honest work", lambda: run_row(arena, level)


def cheat_row(arena: Arena, cheat: Cheat, level: str, *, gate: bool) -> Row:
    """With the gate, which must refuse it, or without, where its layer must."""
    outcome = arena.run(cheat, gate=gate, isolation=level)
    backend = arena.dialect.backend
    expected = "gate" if gate else cheat.layer_on.get(backend, cheat.layer)
    wrong, is_open = "", False
    if not gate and level != "bubblewrap":  # what walls stop there may be stopped by another layer, or by none
        expected = outcome.layer if outcome.layer in cheat.weaker else expected
        reached = outcome.layer == "nothing" or (expected == "sandbox" and outcome.layer == "ignored")
        reached = reached or "came along" in str(outcome.result.reason)
        is_open = reached and outcome.layer != expected
    elif outcome.layer != expected:
        wrong = f"{outcome.layer} instead of {expected}"
    if outcome.left and level == "bubblewrap":
        wrong += f" left {', '.join(outcome.left)}"
    return row_of(outcome, backend, level, "gate on" if gate else "gate off", wrong, is_open)


def honest_row(arena: Arena, variant: honest.Variant, level: str, seed: int, *, calibrate: bool = False) -> Row:
    """It must pass, audit included."""
    outcome = arena.honest(variant, seed, isolation=level, calibrate=calibrate)
    result = outcome.result
    wrong = "" if result.status == "ok" and result.audit is not None else f"flagged: {result.reason}"
    wrong += f" left {', '.join(outcome.left)}" if outcome.left else ""
    return row_of(outcome, arena.dialect.backend, level, f"honest {seed}", wrong)


def run_row(arena: Arena, level: str) -> Row:
    """A loop whose researcher cheats: every proposal is decided, and the run goes on."""
    started, name = time.monotonic(), "one cheat after the other, and then honest work"
    try:
        after = run_of(arena, sample())
    except ArError as error:  # a machine too busy for a baseline of 0.3 s is not this table's subject
        seconds = round(time.monotonic() - started, 1)
        return Row("null", level, "a run", name, "stopped", seconds, error.message, "the run stopped")
    honest_again = after.last in ("keep", "discard") and len(after.layers) == len(sample())
    wrong = "" if honest_again and after.fault is None and not after.left else after.words()
    return Row("null", level, "a run", name, "decided", round(time.monotonic() - started, 1), after.words(), wrong)


def row_of(outcome: Outcome, backend: str, level: str, kind: str, wrong: str, is_open: bool = False) -> Row:
    """An outcome as a row."""
    result, audit = outcome.result, outcome.result.audit
    reason = result.reason or f"val_bpb {result.val_bpb:.3f}"
    if result.status == "ok" and audit is not None:
        reason += f", audit: largest {audit.max_abs:.1g}, mean {audit.mean_diff:+.1g}"
    reason = " ".join(reason.split())[:REASON_CHARACTERS]
    return Row(backend, level, kind, outcome.name, outcome.layer, round(outcome.seconds, 2), reason, wrong, is_open)


def kept(path: Path) -> dict[tuple[str, str, str, str], Row]:
    """What an earlier call has run."""
    rows = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row.backend, row.level, row.kind, row.name): row for row in rows}


def summarise(rows: list[Row]) -> int:
    """The sum in words; 1 when something went wrong."""
    print()
    for backend in dict.fromkeys(row.backend for row in rows):
        mine = [row for row in rows if row.backend == backend]
        for kind in ("gate on", "gate off", "honest"):
            some = [row for row in mine if row.kind.startswith(kind)]
            works = [row for row in some if row.layer == "nothing" and kind != "honest"]
            good = sum(not row.wrong and not row.open for row in some) - len(works)
            print(f"{backend:5} {kind:9} {good} of {len(some)}" + (f"; works: {works[0].name}" if works else ""))
    for row in rows:
        if row.open:
            print(f"  not stopped at level {row.level}: {row.name}")
    wrong = [row for row in rows if row.wrong]
    for row in wrong:
        print(f"  WRONG {row.backend}, {row.kind}: {row.name}: {row.wrong}: {row.reason}")
    print("all as they should be" if not wrong else f"{len(wrong)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
