"""Preparing the stdlib corpus: each step's seconds, and what calling again costs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from autoresearch.core.data.corpora import STDLIB
from autoresearch.core.data.manifest import PrepareOptions
from autoresearch.core.data.prepare import prepare

VOCAB, SEQ = 2048, 256
HELD_OUT_BYTES = 500_000
STEPS = {
    "splitting": "split, duplicates and overlaps",
    "learning": "learn the tokenizer",
    "encoding": "encode and check",
}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """One preparation from nothing, then again; `quick` leaves nothing out, there is nothing to repeat."""
    options = PrepareOptions(STDLIB, (VOCAB,), (SEQ,), HELD_OUT_BYTES, HELD_OUT_BYTES)
    marks: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:

        def mark(message: str) -> None:
            marks.append((message, time.perf_counter()))

        started = time.perf_counter()
        prepared = prepare(options, Path(folder), mark)
        ended = time.perf_counter()
        prepare(options, Path(folder), mark)
        again = time.perf_counter() - ended
    manifest = prepared.manifest
    size = sum(split.bytes for split in manifest.splits.values()) / 1e6
    rows = [{"name": f"stdlib, {size:.1f} MB, in all", "median": ended - started, "unit": "s", "note": "one run"}]
    ends = [when for _, when in marks[1:]] + [ended]
    for (message, begun), end in zip(marks, ends, strict=True):
        step = next((words for key, words in STEPS.items() if key in message), None)
        if step is not None:
            rows.append({"name": step, "median": end - begun, "unit": "s", "note": "one run"})
    rows.append({"name": "again", "median": 1e3 * again, "unit": "ms", "note": "nothing to do"})
    marks_of = manifest.yardsticks
    rows.append({"name": "gzip -9 of val", "median": marks_of.gzip_bpb, "unit": "bits/byte", "note": ""})
    rows.append({"name": "xz -9 of val", "median": marks_of.xz_bpb, "unit": "bits/byte", "note": ""})
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
