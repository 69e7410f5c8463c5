"""The feed end to end: a feeder process, a socket, and this process taking batches as fast as it can.

The runtime does nothing, so what is measured is the most that a train file could get. The goal is 20 M tokens a second
at T = 2048 and B = 64.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from autoresearch.backends.contract import Packing, Runtime
from autoresearch.core.data.client import FeedClient, FeedClock
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare

VOCAB = 512
SECONDS = 1.5
RUNS = 5
SHAPES: tuple[tuple[int, int, Packing], ...] = (
    (64, 2048, "best_fit"),
    (64, 2048, "stream"),
    (16, 256, "best_fit"),
)


class HostRuntime:
    """Keeps arrays where they are."""

    def to_device(self, tokens: np.ndarray) -> np.ndarray:
        return tokens

    def synchronize(self) -> None:
        """Nothing is in flight."""


def prepare_small(folder: Path) -> Prepared:
    """About 4 MB of library source in one file, cut into documents of some 128 kB."""
    library = Path(sysconfig.get_paths()["stdlib"])
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(library.glob("*.py")))
    (folder / "library.txt").write_text(text, encoding="utf-8")
    options = PrepareOptions(str(folder / "library.txt"), (VOCAB,), (256,), 50_000, 50_000)
    return prepare(options, folder / "data", lambda message: None)


def measure(prepared: Prepared, batch: int, seq: int, packing: Packing, seconds: float) -> tuple[float, float]:
    """Million tokens a second between the first and the last batch, and milliseconds to the first one asked for."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    argv = [sys.executable, "-m", "autoresearch.core.data.feed", "--prepared", str(prepared.folder)]
    argv += ["--vocab", str(VOCAB), "--seed", "0", "--budget", str(seconds)]
    argv += ["--socket-fd", str(theirs.fileno()), "--events-fd", str(write)]
    process = subprocess.Popen(argv, pass_fds=[theirs.fileno(), write])
    theirs.close()
    os.close(write)
    data = FeedClient(ours, runtime=cast(Runtime, HostRuntime()), vocab_size=VOCAB, seed=0)
    data.attach(FeedClock(seconds, lambda point: None))
    asked = time.perf_counter()
    started, tokens, first = 0.0, 0, 0
    for _, _, info in data.batches(batch, seq, packing):
        if not started:
            started, first = time.perf_counter(), info.tokens
        tokens = info.tokens
    speed = (tokens - first) / (time.perf_counter() - started) / 1e6
    process.wait()
    ours.close()
    os.close(read)
    return speed, 1e3 * (started - asked)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Every shape, several times."""
    runs, seconds = (3, 0.5) if quick else (RUNS, SECONDS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_small(Path(folder))
        waits: list[float] = []
        for batch, seq, packing in SHAPES:
            measured = [measure(prepared, batch, seq, packing, seconds) for _ in range(runs)]
            speeds = [speed for speed, _ in measured]
            waits += [wait for _, wait in measured]
            rows.append(
                {
                    "name": f"{packing}, B {batch} x T {seq}",
                    "median": statistics.median(speeds),
                    "unit": "M tokens/s",
                    "note": f"{min(speeds):.1f} to {max(speeds):.1f} over {runs} runs of {seconds:g} s",
                }
            )
        note = f"{min(waits):.0f} to {max(waits):.0f}; the process's start included, the clock not yet running"
        rows.append({"name": "first batch", "median": statistics.median(waits), "unit": "ms", "note": note})
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
