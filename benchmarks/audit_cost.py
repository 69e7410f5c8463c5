"""What audit and sandbox cost: the audit's answers beside the scoring's, a process's start and sealing at every level.

The demo and cpu presets on both frameworks, a short training, the real train files, as many positions as the audit
takes by itself. In a run only trials that could lead to a kept change pay for it (`core.run.evidence.audit_threshold`).
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.trainfile.constants import write_preset
from autoresearch.core.trial.evaluation import Scorer
from autoresearch.core.trial.processes import Child, Launch
from autoresearch.core.trial.request import TrialTerms
from autoresearch.core.trial.sandbox.levels import Sandbox, levels, open_sandbox
from autoresearch.core.trial.sandbox.sealing import seal, why_unsealed
from autoresearch.core.trial.supervisor import run_trial
from benchmarks._backends import loadable
from benchmarks._figures import figure
from benchmarks.trial_overhead import prepared_for

PRESETS = ("demo", "cpu")
TRAIN_SECONDS = 6.0
REPEATS = 3
STARTS = 20
THREADS = 16
WAITING = """
import os, sys, threading
event = threading.Event()
for _ in range(int(sys.argv[2]) - 1): threading.Thread(target=event.wait, daemon=True).start()
os.write(int(sys.argv[1]), b"1")
os.read(int(sys.argv[1]), 1)
"""
"""A process that says when it has its threads, and waits."""


def run() -> list[dict[str, Any]]:
    """Rows of every framework that runs here, then the starts and the sealing."""
    rows = []
    for backend, _ in loadable(("cuda", "mlx")):
        for preset in PRESETS:
            rows += measure(backend, preset)
    return rows + starts() + sealings()


def measure(backend: str, name: str) -> list[dict[str, Any]]:
    """Seconds of scoring, of the audit's process until it is ready, and of its answers; the medians of some trials."""
    folder = Path(next(iter(backends.__path__))) / backend
    preset = load_presets(folder / "presets.toml")[name]
    prepared = prepared_for(preset)
    source = write_preset((folder / "train.py").read_text(encoding="utf-8"), preset)
    samples = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as place, timed() as spent:
            terms = TrialTerms.of_preset(backend, preset, prepared.folder, TRAIN_SECONDS)
            request = terms.request(source, Path(place))
            result = run_trial(request)
        if result.status != "ok" or result.audit is None:
            raise RuntimeError(f"{backend} {name}: {result.reason}")
        samples.append(spent)
    vocabulary = preset.data.vocabularies[0]
    rows = len(prepared.scored_rows("val", vocabulary, preset.data.eval_seq_len).rows)
    median = {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
    title, positions = f"{backend} {name}", result.audit.positions
    share = 100 * median["audit answer"] / median["score answer"]
    note = f"{REPEATS} trials"
    return [
        figure(f"{title}: scoring, the answers", median["score answer"], "s", f"{rows} rows, {note}"),
        figure(f"{title}: audit, its process ready", median["audit load"], "s", note),
        figure(f"{title}: audit, the answers", median["audit answer"], "s", f"{positions} rows, {note}"),
        figure(f"{title}: audit's answers by scoring's", share, "%", note),
    ]


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds by role and step of every `Scorer` that works meanwhile."""
    spent: dict[str, float] = {}
    steps = {"warm_up": "load", "answer": "answer"}
    real = {method: getattr(Scorer, method) for method in steps}

    def timing(step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(self, *arguments)
            finally:
                spent[f"{self._child.role} {step}"] = time.perf_counter() - started

        return call

    try:
        for method, work in real.items():
            setattr(Scorer, method, timing(steps[method], work))
        yield spent
    finally:
        for method, work in real.items():
            setattr(Scorer, method, work)


def starts() -> list[dict[str, Any]]:
    """A Python that does nothing behind its guard, at every level that works here, with the filter and without."""
    rows = []
    for sandbox in [open_sandbox(status.level) for status in levels() if status.available]:
        for filtered in (True, False) if sandbox.filtered else (False,):
            one = replace(sandbox, filtered=filtered)  # type: ignore[type-var]
            seconds = sorted(_start(one) for _ in range(STARTS))
            name = f"a process at level {sandbox.level}" + ("" if filtered else ", calls not filtered")
            rows.append(figure(name, statistics.median(seconds), "ms", f"{STARTS} starts"))
    return rows


def sealings() -> list[dict[str, Any]]:
    """How long it takes to seal a process with a framework's number of threads, at every level where it can be done."""
    rows = []
    for level in [status.level for status in levels() if status.available and status.level != "seatbelt"]:
        if sys.platform == "linux" and why_unsealed(level) is None:
            milliseconds = sorted(_sealing(open_sandbox(level)) for _ in range(STARTS))
            note = f"{STARTS} processes of {THREADS} threads"
            rows.append(figure(f"sealing a process at level {level}", statistics.median(milliseconds), "ms", note))
    return rows


def _sealing(sandbox: Sandbox) -> float:
    """Milliseconds that it takes to seal one process."""
    near, far = socket.socketpair()
    with tempfile.TemporaryDirectory() as place, near:
        work = Path(place)
        (work / "home").mkdir()
        (work / "tmp").mkdir()
        argv = [sys.executable, "-I", "-S", "-c", WAITING, str(far.fileno()), str(THREADS)]
        child = Child(Launch("score", argv, work, sandbox=sandbox, descriptors=(far.fileno(),)))
        far.close()
        try:
            if near.recv(1) != b"1":
                raise RuntimeError(f"the process at level {sandbox.level} did not start")
            started = time.perf_counter()
            seal(child.pid, sandbox.level)
            return 1000 * (time.perf_counter() - started)
        finally:
            child.close()


def _start(sandbox: Sandbox) -> float:
    """Milliseconds from the start of the guard to its end."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        (work / "home").mkdir()
        (work / "tmp").mkdir()
        started = time.perf_counter()
        child = Child(Launch("score", [sys.executable, "-I", "-S", "-c", "pass"], work, sandbox=sandbox))
        child.process.wait()
        milliseconds = 1000 * (time.perf_counter() - started)
        if child.returncode() != 0:
            raise RuntimeError(f"the process at level {sandbox.level} ended with {child.returncode()}")
        child.close()
    return milliseconds
