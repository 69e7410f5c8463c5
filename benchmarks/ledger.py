"""The ledger: what opening, reading and one transition cost, also after a hundred thousand experiments."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.summary import summarise

SIZES = (10_000, 100_000)
REPEATS = 15
CONFIG = {"backend": "null", "preset": "demo", "device": "benchmark"}


def run() -> list[dict[str, Any]]:
    """name, median, unit, note of every measurement."""
    results = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "run"
            fill(folder, size)
            note = f"{size} experiments"
            results.append(_row("ledger: open and read the run", lambda folder=folder: _open(folder), note))
            results.append(_row("ledger: status", lambda folder=folder: _summary(folder), note))
            results.append(_row("ledger: last 20", lambda folder=folder: _last(folder), note))
            results.append(_transition(folder, note))
    return results


def fill(folder: Path, size: int) -> None:
    """A decided run of that many experiments, written in bulk: the rows are what the loop would have left."""
    with Ledger(folder) as ledger:
        ledger.create("run", CONFIG, "0" * 40)
        with ledger._transaction(journal=False) as write:
            for number in range(size):
                bpb = 2.0 - number * 1e-6
                status = "keep" if number % 50 == 0 else "discard"
                metrics = json.dumps({"tokens": 10_000_000, "wall_seconds": 320.0, "steps": 900, "params": 50_000_000})
                write(
                    "INSERT INTO experiments (number, state, parent, commit_id, source_sha256, fingerprint, hypothesis,"
                    " category, researcher, parameters, created, decided, status, reason, val_bpb, estimate, delta,"
                    " trials, metrics, usd) VALUES (?, 'decided', 0, ?, ?, ?, ?, 'shape', 'tuner', '{}', 1.0, 2.0,"
                    " ?, 'r', ?, ?, 0.0, 1, ?, 0.0)",
                    (
                        number,
                        f"{number:040x}",
                        f"{number:064x}",
                        f"{number:064d}",
                        "x" * 120,
                        status,
                        bpb,
                        bpb,
                        metrics,
                    ),
                )
                write(
                    "INSERT INTO trials (experiment, k, role, subject, seed, starts, started, ended, status, val_bpb,"
                    " result) VALUES (?, 1, 'candidate', ?, 0, 1, 1.0, 2.0, 'ok', ?, ?)",
                    (number, number, bpb, "{}"),
                )
                write(
                    "INSERT INTO proposals (time, experiment, outcome, researcher, tokens_in, tokens_out, usd)"
                    " VALUES (1.0, ?, 'accepted', 'tuner', 1000, 100, 0.001)",
                    (number,),
                )
            write("UPDATE runs SET incumbent = ?", ((size - 1) // 50 * 50,))
            # An experiment in flight, for the transition that is measured.
            write(
                "INSERT INTO experiments (number, state, parent, source_sha256, hypothesis, category, researcher,"
                " parameters, created, trials) VALUES (?, 'proposed', 0, '', 'h', 'shape', 'tuner', '{}', 0.0, 0)",
                (size,),
            )


def _open(folder: Path) -> None:
    with LedgerReader(folder) as reader:
        reader.run()


def _summary(folder: Path) -> None:
    with LedgerReader(folder) as reader:
        summarise(reader)


def _last(folder: Path) -> None:
    with LedgerReader(folder) as reader:
        reader.last(20)


def _transition(folder: Path, note: str) -> dict[str, Any]:
    with Ledger(folder) as ledger:
        number = ledger.next_number() - 1
        trial = RunTrial("candidate", 0)
        return _row("ledger: one durable transition", lambda: ledger.start_trial(number, trial, subject=number), note)


def _row(name: str, work: Callable[[], object], note: str) -> dict[str, Any]:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return {"name": name, "median": statistics.median(seconds) * 1000, "unit": "ms", "note": note}
