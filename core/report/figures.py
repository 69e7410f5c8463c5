"""A run as a picture: every experiment, what was kept, and how the best went down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.core.report.wording import one_line
from autoresearch.core.store.rows import ExperimentRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

BEST, DISCARD, FAILED, INK, GRID = "#1b7f4d", "#a9b2bd", "#c8502f", "#2b2f36", "#e6e9ed"
MAX_LABELS = 12
LABEL_CHARACTERS = 40
WORST_SHOWN = 1.5
"""Results further above the best than this many times the run's whole gain are drawn at the edge."""


def draw_progress(rows: Sequence[ExperimentRow], path: Path, yardsticks: Mapping[str, float] | None = None) -> None:
    """Write the picture of the decided experiments to `path` (PNG, 1600 x 900).

    `yardsticks` are bits per byte that compressors reach on the same text, by name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    decided = [row for row in rows if row.state == "decided"]
    figure = Figure(figsize=(10.67, 6.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    keeps = [row for row in decided if row.status == "keep" and row.val_bpb is not None]
    low, high = value_range(decided, keeps)
    axes.set_ylim(low, high)
    last = max((row.number for row in decided), default=0)
    axes.set_xlim(-0.6, last + max(0.6, 0.06 * last))
    draw_yardsticks(axes, yardsticks or {}, low, high)
    draw_others(axes, decided, low, high)
    dress(axes, decided, keeps)
    figure.draw_without_rendering()  # settles the layout, so that labels can be measured
    draw_keeps(axes, keeps, last)
    add_legend(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def value_range(decided: Sequence[ExperimentRow], keeps: Sequence[ExperimentRow]) -> tuple[float, float]:
    """Bits per byte at the bottom and top of the picture: all keeps, and what is not absurdly worse."""
    values = [row.val_bpb for row in decided if row.val_bpb is not None]
    kept = [row.val_bpb for row in keeps if row.val_bpb is not None]
    if not values:
        return 0.0, 1.0
    best, start = min(kept or values), max(kept or values)
    reach = max(start - best, 0.01 * best)
    top = max([start, *(value for value in values if value <= start + WORST_SHOWN * reach)])
    margin = 0.14 * max(top - best, 0.01 * best)
    return best - 1.8 * margin, top + margin


def draw_yardsticks(axes: Axes, yardsticks: Mapping[str, float], low: float, high: float) -> None:
    """A dashed line for every compressor whose figure is within the picture."""
    for name, value in yardsticks.items():
        if low < value < high:
            axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (5, 4)), alpha=0.55, zorder=1)
            axes.annotate(
                f"{name} {value:.3f}",
                (1.0, value),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=INK,
                alpha=0.8,
            )


def draw_others(axes: Axes, decided: Sequence[ExperimentRow], low: float, high: float) -> None:
    """Discards as dots; those too far up, and those without a number, as marks at the upper edge."""
    edge = high - 0.015 * (high - low)
    discards = [row for row in decided if row.status == "discard" and row.val_bpb is not None]
    inside = [row for row in discards if row.val_bpb is not None and row.val_bpb < high]
    above = [row for row in discards if row not in inside]
    failed = [row for row in decided if row.status in ("crash", "invalid", "timeout")]
    for group, marker, colour, label in (
        (inside, "o", DISCARD, "discarded"),
        (above, "^", DISCARD, "discarded, off the scale"),
        (failed, "x", FAILED, "crash, invalid, timeout"),
    ):
        if group:
            at = [edge if group is not inside or row.val_bpb is None else row.val_bpb for row in group]
            axes.scatter([row.number for row in group], at, s=26, marker=marker, color=colour, label=label, zorder=3)


def draw_keeps(axes: Axes, keeps: Sequence[ExperimentRow], last: int) -> None:
    """The best so far as a step line, its experiments as dots, the biggest steps with their words."""
    if not keeps:
        return
    numbers = [row.number for row in keeps]
    values = [row.val_bpb for row in keeps if row.val_bpb is not None]
    axes.step([*numbers, last], [*values, values[-1]], where="post", color=BEST, linewidth=1.8, zorder=4)
    axes.scatter(numbers, values, s=52, color=BEST, edgecolor="white", linewidth=1.2, label="kept", zorder=5)
    gains = {row.number: before - after for row, before, after in zip(keeps[1:], values, values[1:], strict=False)}
    by_gain = sorted(zip(keeps, values, strict=True), key=lambda pair: -gains.get(pair[0].number, float("inf")))
    label_keeps(axes, by_gain[:MAX_LABELS], last)


def label_keeps(axes: Axes, keeps: Sequence[tuple[ExperimentRow, float]], last: int) -> None:
    """Write the words of these keeps beside their dots; one that would cover an earlier one is left out."""
    from matplotlib.patheffects import withStroke

    placed: list[Bbox] = []
    for row, value in keeps:
        near_the_end = row.number > 0.5 * max(last, 1)
        words = one_line(row.hypothesis.split(": ")[0], LABEL_CHARACTERS)
        label = axes.annotate(
            f"{value:.4f}  {words}",
            (row.number, value),
            xytext=(-7, -6) if near_the_end else (7, 7),
            textcoords="offset points",
            ha="right" if near_the_end else "left",
            va="top" if near_the_end else "bottom",
            fontsize=8,
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=6,
        )
        box = label.get_window_extent()
        if any(box.overlaps(other) for other in placed):
            label.remove()
        else:
            placed.append(box)


def dress(axes: Axes, decided: Sequence[ExperimentRow], keeps: Sequence[ExperimentRow]) -> None:
    """Title and axes."""
    from matplotlib.ticker import MaxNLocator

    count = sum(row.number > 0 for row in decided)
    title = f"{count} experiments"
    values = [row.val_bpb for row in keeps if row.val_bpb is not None]
    if values:
        title += f", {len(values) - 1} kept: {values[0]:.4f} → {values[-1]:.4f} bits per byte"
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.set_xlabel("experiment", color=INK)
    axes.set_ylabel("validation bits per byte (lower is better)", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def add_legend(axes: Axes) -> None:
    """One line above the picture, at the right of the title."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.005),
            ncols=len(handles),
            frameon=False,
            fontsize=8,
            handletextpad=0.2,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
