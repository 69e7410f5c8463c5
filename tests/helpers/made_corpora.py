"""Small made-up corpora for the tests of this folder."""

from __future__ import annotations

import random
import string
from pathlib import Path

from autoresearch.core.data.manifest import PrepareOptions

VOCAB = 384
SEQ = 32


def prose(seed: int, paragraphs: int) -> str:
    """Text of made-up words: different for every seed."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(300)]
    return "".join(" ".join(draw.choices(words, k=40)) + ".\n" for _ in range(paragraphs))


def write_corpus(folder: Path, documents: int = 60, paragraphs: int = 12) -> Path:
    """A folder of text files of about 3 kB."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        (folder / f"{number:03d}.txt").write_text(prose(number, paragraphs), encoding="utf-8", newline="")
    return folder


def options(
    corpus: Path | str, vocabularies: tuple[int, ...] = (VOCAB,), seq_lens: tuple[int, ...] = (SEQ,)
) -> PrepareOptions:
    """Options for a corpus of write_corpus."""
    return PrepareOptions(str(corpus), vocabularies, seq_lens, val_bytes=12_000, test_bytes=12_000)


def quiet(message: str) -> None:
    """Progress that nobody reads."""
