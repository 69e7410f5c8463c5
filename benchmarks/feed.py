"""The feed end to end: a feeder process, a socket, and this process taking batches as fast as it can.

The runtime does nothing, so what is measured is the most that a train file could get. The goal is 20 M tokens a second
at T = 2048 and B = 64.
"""

from __future__ import annotations

import json
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
from autoresearch.core.data.documents import split_long
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.packing import Packer
from autoresearch.core.data.prepare import prepare
from autoresearch.core.data.shards import open_shard

VOCAB = 512
SECONDS = 1.0
RUNS = 5
DOCUMENT_BYTES = {"short": 450, "long": 16_000}
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


def prepare_small(folder: Path, document_bytes: int) -> Prepared:
    """About 4 MB of library source as documents of some `document_bytes`."""
    library = Path(sysconfig.get_paths()["stdlib"])
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(library.glob("*.py"))).encode()
    lines = (json.dumps({"text": part.decode()}) + "\n" for part in split_long(text, document_bytes))
    folder.mkdir()
    (folder / "library.jsonl").write_text("".join(lines), encoding="utf-8")
    options = PrepareOptions(str(folder / "library.jsonl"), (VOCAB,), (256,), 50_000, 50_000)
    return prepare(options, folder / "data", lambda message: None)


def packing_alone(prepared: Prepared, batch: int, seq: int, packing: Packing, seconds: float) -> float:
    """Million tokens a second of the packer on the same text, in this process."""
    packer = Packer([open_shard(path) for path in prepared.train_shards(VOCAB)], seed=0)
    draw = packer.best_fit if packing == "best_fit" else packer.stream
    draw(batch, seq)
    started, tokens = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        draw(batch, seq)
        tokens += batch * seq
    return tokens / spent / 1e6


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
    """Every shape on short and on long documents, several times; beside each, the packer alone on the same text."""
    runs, seconds = (3, 0.5) if quick else (RUNS, SECONDS)
    rows: list[dict[str, Any]] = []
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, document_bytes in DOCUMENT_BYTES.items():
            prepared = prepare_small(Path(folder, kind), document_bytes)
            for shape in SHAPES:
                measured = [measure(prepared, *shape, seconds) for _ in range(runs)]
                waits += [wait for _, wait in measured]
                alone = [packing_alone(prepared, *shape, seconds / 3) for _ in range(runs)]
                name = f"{shape[2]}, B {shape[0]} x T {shape[1]}, {kind} documents"
                rows.append(row_of(name, [speed for speed, _ in measured], f"{runs} runs of {seconds:g} s"))
                rows.append(row_of(f"{name}: packing alone", alone, f"{runs} runs"))
    note = f"{min(waits):.0f} to {max(waits):.0f}; the process's start included, the clock not yet running"
    return [*rows, {"name": "first batch", "median": statistics.median(waits), "unit": "ms", "note": note}]


def row_of(name: str, speeds: list[float], what: str) -> dict[str, Any]:
    """A median and the range of the single runs."""
    note = f"{min(speeds):.1f} to {max(speeds):.1f} over {what}"
    return {"name": name, "median": statistics.median(speeds), "unit": "M tokens/s", "note": note}


if __name__ == "__main__":
    for row in run():
        print(row)
