"""results.tsv: upstream's five columns, written from the ledger for people and notebooks. Never read back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from autoresearch.core.store.rows import ExperimentRow

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")


def results_tsv(rows: Iterable[ExperimentRow], *, header: bool = True) -> str:
    """The table as text. A number that does not exist is `nan`: it reads as a float and compares as no result."""
    lines = ["\t".join(COLUMNS)] if header else []
    for row in rows:
        bpb = "nan" if row.val_bpb is None else f"{row.val_bpb:.6f}"
        memory = "nan" if row.peak_memory_mb is None else f"{row.peak_memory_mb / 1024:.1f}"
        commit = (row.commit or "")[:7]
        lines.append("\t".join((commit, bpb, memory, row.status or row.state, _field(row.hypothesis))))
    return "".join(f"{line}\n" for line in lines)


def _field(text: str) -> str:
    """In one line. One that begins with a quote would open a quoted field for most readers, pandas among them."""
    words = " ".join(text.split())
    return '"' + words.replace('"', '""') + '"' if words.startswith('"') else words


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new one, never half."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
