"""The ledger: cost of opening, reading and one transition, up to a hundred thousand experiments."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.store import chain
from autoresearch.core.store.exports import summarise
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trial.request import TrialResult

SIZES = (10_000, 100_000)
REPEATS = 15
_TEXT = "x = 1  # a train file\n" * 1000
SOURCE, SOURCE_SHA256 = zlib.compress(_TEXT.encode()), hashlib.sha256(_TEXT.encode()).hexdigest()
"""The one source of all experiments: 22 KB, as long as a real one."""
CONFIG = {
    "backend": "null",
    "preset": "demo",
    "device": "benchmark",
    "judge": "greedy",
    "train_seconds": 2.0,
    "corpus": "none",
    "prepared": "/nowhere",
    "prepared_sha256": "0" * 64,
}


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
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
            results.append(_decision(folder, size, note))
            results.append(
                _row("ledger: walk the chain (status --verify)", lambda folder=folder: _verify(folder), note, 3)
            )
    return results


def fill(folder: Path, size: int) -> None:
    """Write a decided run of `size` experiments in bulk, with the rows that the loop would have left."""
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
                        SOURCE_SHA256,
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
            write("INSERT INTO texts (sha256, body, first_used) VALUES (?, ?, 1.0)", (SOURCE_SHA256, SOURCE))
            chain.chain_existing(write)
            # An experiment in flight, for the transition that is measured.
            write(
                "INSERT INTO experiments (number, state, parent, source_sha256, hypothesis, category, researcher,"
                " parameters, created, trials) VALUES (?, 'proposed', 0, ?, 'h', 'shape', 'tuner', '{}', 0.0, 0)",
                (size, SOURCE_SHA256),
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


def _decision(folder: Path, number: int, note: str) -> dict[str, Any]:
    """Time the decision of the experiment in flight, its link included; it is undone after each time."""
    decision = Decision("discard", 2.0, None, "r")
    with Ledger(folder) as ledger:
        result = TrialResult(status="ok", val_bpb=2.0, seed=number, backend="null", preset="demo")
        ledger.score(number, 1, result)
        (first,) = ledger.trials(experiment=number)

        def decide() -> None:
            with ledger._transaction(journal=False) as write:
                write("UPDATE experiments SET state = 'scored' WHERE number = ?", (number,))
            ledger.decide(number, decision, first)

        return _row("ledger: one decision, and a transaction to take it back", decide, note)


def _verify(folder: Path) -> None:
    with LedgerReader(folder) as reader:
        report = reader.verify()
    if report.fault is not None:
        raise RuntimeError(report.fault)


def _row(name: str, work: Callable[[], object], note: str, repeats: int = REPEATS) -> dict[str, Any]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return {"name": name, "median": statistics.median(seconds) * 1000, "unit": "ms", "note": note}
