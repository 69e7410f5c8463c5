"""Tokenizers of Python's standard library: how fast they are learned and applied, and how short text becomes."""

from __future__ import annotations

import statistics
import sysconfig
import time
from pathlib import Path
from typing import Any

from autoresearch.core.data.tokenizer import Tokenizer, train_tokenizer

VOCABULARIES = (1024, 2048, 8192)
TEXT_BYTES = 4_000_000
RUNS = 3


def run() -> list[dict[str, Any]]:
    """Learning once, encoding and decoding several times, on one thread."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text(encoding="utf-8") for path in sorted(library.glob("*.py"))]
    while sum(map(len, texts)) > TEXT_BYTES:
        texts.pop()
    size = sum(len(text.encode()) for text in texts)
    rows = []
    for vocab in VOCABULARIES:
        started = time.perf_counter()
        model = train_tokenizer(texts, vocab)
        learned = time.perf_counter() - started
        tokenizer = Tokenizer(model, threads=1)
        encoded = tokenizer.encode(texts)
        if any(tokenizer.decode(part) != text for part, text in zip(encoded, texts, strict=True)):
            raise RuntimeError(f"a text does not come back from the vocabulary of {vocab}")
        speeds = [size / timed(lambda one=tokenizer: one.encode(texts)) / 1e6 for _ in range(RUNS)]
        tokens = sum(map(len, encoded))
        note = f"{size / 1e6:.1f} MB, one thread"
        rows += [
            {"name": f"{vocab}: learn", "median": size / learned / 1e6, "unit": "MB/s", "note": "one run"},
            {"name": f"{vocab}: encode", "median": statistics.median(speeds), "unit": "MB/s", "note": note},
            {"name": f"{vocab}: bytes a token", "median": size / tokens, "unit": "", "note": ""},
        ]
    return rows


def timed(work: Any) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
