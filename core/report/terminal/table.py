"""A run's experiments as a table: drawn on a terminal, tab-separated lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table

from autoresearch.core.report.wording import one_line
from autoresearch.core.store.rows import ExperimentRow

COLUMNS = ("n", "status", "val_bpb", "delta", "seconds", "description")
STATUS_STYLES = {"keep": "bold green", "discard": "dim", "crash": "red", "invalid": "red", "timeout": "yellow"}


def cells(row: ExperimentRow) -> tuple[str, ...]:
    """One experiment as text, in the order of COLUMNS. What does not exist is "-"."""
    wall = row.metrics.get("wall_seconds")
    description = one_line(row.hypothesis)
    if row.status in ("crash", "invalid", "timeout") and row.reason:
        description += f" ({one_line(row.reason)})"
    if row.origin is not None:
        description += f" [{row.origin}]"
    return (
        str(row.number),
        row.status or row.state,
        "-" if row.val_bpb is None else f"{row.val_bpb:.4f}",
        "-" if row.delta is None or row.number == 0 else f"{row.delta:+.4f}",
        "-" if wall is None else f"{wall:.0f}",
        description,
    )


def write_table(rows: Iterable[ExperimentRow], stream: TextIO | None = None) -> None:
    """Write the experiments to `stream` (standard output)."""
    stream = stream or sys.stdout
    lines = [(row, cells(row)) for row in rows]
    if not stream.isatty():
        write_plain([COLUMNS, *(texts for _, texts in lines)], stream)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        numeric = name in ("n", "val_bpb", "delta", "seconds")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name != "description")
    for row, texts in lines:
        table.add_row(*texts, style=STATUS_STYLES.get(row.status or "", ""))
    Console(file=stream, markup=False, highlight=False).print(table)


def write_plain(lines: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Tab-separated lines, for other programs."""
    for texts in lines:
        stream.write("\t".join(texts) + "\n")
    stream.flush()
