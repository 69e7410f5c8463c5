"""A run's experiments as a table: drawn on a terminal, tab-separated lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoresearch.core.report.wording import SEPARATOR, one_line, shortened
from autoresearch.core.store.columns import COLUMNS, NUMERIC, TABLE, Column
from autoresearch.core.store.rows import ExperimentRow

STATUS_STYLES = {
    "keep": "bold green",
    "discard": "dim",
    "stopped": "dim",
    "crash": "red",
    "invalid": "red",
    "timeout": "yellow",
}
_FORMATS = {"bpb": ".4f", "change": "+.4f", "seconds": ".0f", "amount": ".2f"}


LEAST_ROOM = 16
"""Least characters of a shortened description; with less room there are no columns."""
GAP = 2
"""Characters between two columns."""


def write_table(rows: Iterable[ExperimentRow], stream: TextIO | None = None, *, full: bool = False) -> None:
    """Write the experiments to `stream` (standard output by default).

    On a terminal each takes one line, and a description that is too long ends after its last whole word; `full` breaks
    it over several lines instead.
    """
    stream = stream or sys.stdout
    columns = [COLUMNS[name] for name in TABLE]
    found = list(rows)
    headings = [Heading(column.title, column.kind in NUMERIC, column.name == "description") for column in columns]
    lines = [[_cell(column, row) for column in columns] for row in found]
    if stream.isatty() and not full:
        lines = _one_line_each(headings, lines, Console(file=stream).width)
    draw(
        headings,
        lines,
        stream,
        [STATUS_STYLES.get(row.status or "", "") for row in found],
    )


@dataclass(frozen=True)
class Heading:
    """The head of one column."""

    title: str
    numeric: bool = False
    """Aligned to the right."""
    wraps: bool = False
    """Broken over several lines where the terminal is narrow."""


def flow(parts: Sequence[str], width: int) -> list[str]:
    """Join facts into as many lines of `width` columns as they need."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + len(SEPARATOR) + cell_len(part) <= width:
            lines[-1] += SEPARATOR + part
        else:
            lines.append(part)
    return lines


def draw(
    headings: Sequence[Heading], lines: Sequence[Sequence[str]], stream: TextIO, styles: Sequence[str] = ()
) -> None:
    """Draw a table on a terminal, each line in its style; elsewhere write tab-separated lines.

    Where a terminal is too narrow for the columns, each line becomes a paragraph of its facts.
    """
    if not stream.isatty():
        write_plain([[heading.title for heading in headings], *lines], stream)
        return
    # A researcher's words may look like rich's markup, or like its names of pictures: x[:100:] holds one.
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if fixed_width(headings, lines) + LEAST_ROOM > console.width:
        for cells, style in zip(lines, styles or [""] * len(lines), strict=True):
            facts = [
                f"{heading.title} {cell}" for heading, cell in zip(headings, cells, strict=True) if cell.strip("-")
            ]
            console.print(Text("\n  ".join(flow(facts, console.width - GAP)), style=style), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.title, justify="right" if heading.numeric else "left", no_wrap=not heading.wraps)
    for cells, style in zip(lines, styles or [""] * len(lines), strict=True):
        table.add_row(*cells, style=style)
    console.print(table)


def fixed_width(headings: Sequence[Heading], lines: Sequence[Sequence[str]]) -> int:
    """Return the characters that the columns take which are not broken over several lines."""
    widths = [
        max([cell_len(heading.title), *(cell_len(cells[at]) for cells in lines)]) for at, heading in enumerate(headings)
    ]
    return sum(wide + GAP for wide, heading in zip(widths, headings, strict=True) if not heading.wraps)


def _one_line_each(headings: Sequence[Heading], lines: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Shorten what would be broken over several lines to the characters that the other columns leave."""
    room = width - fixed_width(headings, lines)
    if room < LEAST_ROOM:  # each line becomes a paragraph, which holds it all
        return [list(cells) for cells in lines]
    return [
        [shortened(cell, room) if heading.wraps else cell for cell, heading in zip(cells, headings, strict=True)]
        for cells in lines
    ]


def write_plain(lines: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Write tab-separated lines, for other programs."""
    for cells in lines:
        stream.write("\t".join(cells) + "\n")
    stream.flush()


def _cell(column: Column, row: ExperimentRow) -> str:
    """Write one value as text; "-" for a missing one."""
    if column.name == "description":
        return _description(row)
    value = column.read(row)
    # The baseline is compared with nothing.
    if value is None or (column.kind == "change" and row.number == 0):
        return "-"
    return format(value, _FORMATS[column.kind]) if column.kind in _FORMATS else one_line(str(value))


def _description(row: ExperimentRow) -> str:
    """Write the change, why it failed if it did, and the peer run that offered it."""
    description = one_line(row.hypothesis)
    if row.status in ("stopped", "crash", "invalid", "timeout") and row.reason:
        description += f" ({one_line(row.reason)})"
    if row.origin is not None:
        description += f" [{row.origin}]"
    return description
