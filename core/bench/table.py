"""Format measurements as a table: a line per figure, a column per backend."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.core.bench.measure import BackendMeasurement

SCALES = {"tokens/s": 1.0, "ms": 1e3, "%": 1e2, "s": 1.0, "MiB": 1.0, "MFLOP": 1e-6, "": 1.0}
LINES = (
    ("val_bpb", "val_bpb", ""),
    ("tokens/s", "tokens_per_second", "tokens/s"),
    ("tokens", "tokens", ""),
    ("steps", "steps", ""),
    ("step", "step_seconds", "ms"),
    ("FLOP per token, counted", "flops_per_token", "MFLOP"),
    ("FLOP per token, claimed", "claimed_flops_per_token", "MFLOP"),
    ("MFU, counted", "mfu", "%"),
    ("MFU, claimed", "claimed_mfu", "%"),
    ("memory", "peak_memory_mb", "MiB"),
    ("memory, host", "peak_host_memory_mb", "MiB"),
    ("start-up", "start_up", "s"),
    ("weights frozen", "freezing", "s"),
    ("scoring", "scoring", "s"),
    ("audit", "audit", "s"),
    ("end", "ending", "s"),
    ("all outside training", "outside", "s"),
    ("share of the budget", "outside_share", "%"),
)


def table(measured: Sequence[BackendMeasurement]) -> str:
    """Format the medians over the trials. With two backends, the last column is the first's figure over the other's."""
    rows: list[list[str]] = [["", *(one.backend for one in measured), *(["ratio"] if len(measured) == 2 else [])]]
    rows += [line("device", [one.hardware.place() for one in measured])]
    rows += [line("framework", [one.hardware.framework for one in measured])]
    rows += [line("computes in", [one.precision for one in measured])]
    for precision in ("fp32", "bf16"):
        rows.append(figures(f"products, {precision}", [one.peak.get(precision) for one in measured], 1e-9, "GFLOP/s"))
    for title, name, unit in LINES:
        rows.append(figures(title, [one.median(name) for one in measured], SCALES[unit], unit))
    shown = [row for row in rows if any(cell for cell in row[1:])]
    width = max(len(row[0]) for row in shown)
    widths = [max(len(row[i]) if i < len(row) else 0 for row in shown) for i in range(1, max(map(len, shown)))]
    return "\n".join(
        "  ".join([row[0].ljust(width), *(cell.rjust(w) for cell, w in zip(row[1:], widths, strict=False))]).rstrip()
        for row in shown
    )


def line(title: str, words: list[str]) -> list[str]:
    """Make a line of words, which has no ratio."""
    return [title, *words]


def figures(title: str, values: Sequence[float | None], scale: float, unit: str) -> list[str]:
    """Make a line of numbers. An unknown one leaves its cell empty."""
    cells = ["" if value is None else f"{figure(value * scale)} {unit}".strip() for value in values]
    if len(values) == 2:
        first, second = values
        cells.append(f"{first / second:.3g}" if first is not None and second else "")
    return [title, *cells]


def figure(value: float) -> str:
    """Format a number with four significant digits, or as a whole number from 1000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
