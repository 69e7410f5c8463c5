"""The picture of `ar scale`: the improvement at other budgets and other widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.core.report.document.figures import BEST, DISCARD, FAILED, GRID, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"holds": BEST, "fades": "#b8860b", "flips": FAILED, "not certain": DISCARD, None: INK}
"""Colour of a point by what becomes of the improvement there; None is the run's own budget."""


def draw_scaling(record: Mapping[str, Any], path: Path) -> bool:
    """Write the picture of one call to `path` (PNG, 1600 x 750). Returns False when no condition has a result."""
    rows = [row for row in record["conditions"] if row["delta"] is not None]
    if not rows:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    own = [row for row in rows if row["axis"] == "budget" and row["factor"] == 1.0]
    budgets = [row for row in rows if row["axis"] == "budget"]
    widths = [row for row in rows if row["axis"] == "width"]
    panels: list[tuple[list[Any], bool]] = [(budgets, False)] if budgets else []
    if widths:
        panels.append(([*own, *widths], True))
    figure = Figure(figsize=(10.67, 5.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    drawn: list[Axes] = []
    for index, (some, wide) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1, sharey=drawn[0] if drawn else None)
        _draw(axes, sorted(some, key=lambda row: float(row["factor"])), wide=wide)
        drawn.append(axes)
    drawn[0].set_ylabel("best file less baseline, bits per byte (below 0 is better)", color=INK)
    seen = {row["trend"] for row in rows if row["trend"]}
    for trend in (name for name in COLOURS if name in seen):
        drawn[0].plot([], [], "o", color=COLOURS[trend], label=trend)
    drawn[0].plot([], [], "o", color=INK, label="the run's own budget")
    figure.legend(loc="outside lower right", ncols=5, frameon=False, fontsize=9)
    verdict = str(record["verdict"])
    figure.suptitle(f"experiment {record['experiment']}: {verdict}", x=0.01, ha="left", fontsize=11, color=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], *, wide: bool) -> None:
    """Draw one axis of conditions: each difference with its 95 % interval, and single seeds as faint dots."""
    places = list(range(len(rows)))
    axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    axes.plot(places, [row["delta"] for row in rows], color=GRID, linewidth=1.6, zorder=2)
    for place, row in zip(places, rows, strict=True):
        colour = COLOURS.get(row["trend"], INK)
        below, above = row["delta"] - row["low"], row["high"] - row["delta"]
        axes.errorbar(
            [place], [row["delta"]], [[below], [above]], fmt="o", color=colour, capsize=5, markersize=8, zorder=4
        )
        pairs = list(zip(row["baseline_val_bpb"], row["final_val_bpb"], strict=False))
        axes.scatter([place] * len(pairs), [b - a for a, b in pairs], s=14, color=colour, alpha=0.4, zorder=3)
        axes.annotate(
            f"{row['delta']:+.4f}".replace("-", "−"),
            (place, row["delta"]),
            (9, 4),
            textcoords="offset points",
            fontsize=9,
            color=INK,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            zorder=5,
        )
    axes.set_xticks(places, [_label(row, wide=wide) for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.3)
    axes.set_xlabel("width of the model" if wide else "training time of both files", color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(row: Mapping[str, Any], *, wide: bool) -> str:
    if wide and row["axis"] == "budget":
        return "as it is\n× 1"
    if row["axis"] == "budget":
        return f"{row['train_seconds']:g} s\n× {row['factor']:g}"
    first, second = row["values"]
    return f"{row['constant']} {first}" + (f", {second}" if first != second else "") + f"\n× {row['factor']:g}"
