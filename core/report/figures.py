"""A run as a picture: every experiment, what was kept, and how the best went down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.core.report.labels import Labels, corners
from autoresearch.core.report.wording import one_line
from autoresearch.core.store.rows import ExperimentRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST, DISCARD, FAILED, INK, GRID = "#1b7f4d", "#a9b2bd", "#c8502f", "#2b2f36", "#e6e9ed"
MAX_LABELS, MAX_DOTS = 12, 400
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
    low, high = value_range(decided, keeps, sigma_of(decided) or 0.0)
    axes.set_ylim(low, high)
    last = max((row.number for row in decided), default=0)
    axes.set_xlim(-0.6, last + max(0.6, 0.06 * last))
    draw_yardsticks(axes, yardsticks or {}, low, high)
    draw_others(axes, decided, low, high)
    dress(axes, decided, keeps)
    draw_best(axes, keeps, last, sigma_of(decided))
    add_legend(figure, axes)
    figure.draw_without_rendering()  # settles the layout, so that labels can be measured
    label_keeps(axes, keeps, decided)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def sigma_of(decided: Sequence[ExperimentRow]) -> float | None:
    """The judge's last idea of the noise of one trial."""
    known = [row.judged["sigma"] for row in decided if row.judged.get("sigma") is not None]
    return known[-1] if known else None


def value_range(
    decided: Sequence[ExperimentRow], keeps: Sequence[ExperimentRow], sigma: float = 0.0
) -> tuple[float, float]:
    """Bits per byte at the bottom and top of the picture: all keeps, and what is not absurdly worse."""
    values = [row.val_bpb for row in decided if row.val_bpb is not None]
    if not values:
        return 0.0, 1.0
    kept = [value for row in keeps for value in (row.val_bpb, best_of(row) - sigma, best_of(row) + sigma) if value]
    best, start = min(kept or values), max(kept or values)
    reach = max(start - best, 0.01 * best)
    bottom = min([best, *(value for value in values if value >= best - reach)])
    top = max([start, *(value for value in values if value <= start + WORST_SHOWN * reach)])
    margin = 0.1 * max(top - bottom, 0.01 * best)
    return bottom - margin, top + margin


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


def draw_best(axes: Axes, keeps: Sequence[ExperimentRow], last: int, sigma: float | None) -> None:
    """The best estimate so far as a step line within its noise, and the keeps' first trials as dots."""
    if not keeps:
        return
    steps = [(row.number, best_of(row)) for row in keeps]
    x = [*(number for number, _ in steps), last]
    y = [*(value for _, value in steps), steps[-1][1]]
    if sigma:
        low, high = ([value + sign * sigma for value in y] for sign in (-1, 1))
        axes.fill_between(x, low, high, step="post", color=BEST, alpha=0.12, linewidth=0, label="± 1 sigma", zorder=1.5)
    axes.step(x, y, where="post", color=BEST, linewidth=1.8, label="best estimate", zorder=4)
    firsts = [row.val_bpb for row in keeps if row.val_bpb is not None]
    axes.scatter(x[:-1], firsts, s=52, color=BEST, edgecolor="white", linewidth=1.2, label="kept", zorder=5)


def label_keeps(axes: Axes, keeps: Sequence[ExperimentRow], decided: Sequence[ExperimentRow]) -> None:
    """The words of the biggest steps beside them; those that would cover something are left out."""
    if not keeps:
        return
    steps = [(float(row.number), best_of(row)) for row in keeps]
    dots = [(float(row.number), row.val_bpb) for row in decided if row.val_bpb is not None]
    # Where there are very many, words may cover some: each is one of hundreds.
    labels = Labels(axes, corners(steps, decided[-1].number), dots if len(dots) <= MAX_DOTS else [])
    gains = [float("inf"), *(before[1] - after[1] for before, after in pairwise(steps))]
    by_gain = sorted(zip(gains, keeps, steps, strict=True), key=lambda one: -one[0])
    for _, row, step in by_gain[:MAX_LABELS]:
        words = one_line(row.hypothesis.split(": ")[0], LABEL_CHARACTERS)
        labels.add(f"{best_of(row):.4f}  {words}", step, INK)


def best_of(row: ExperimentRow) -> float:
    """What is believed of a keep: its estimate, or its first trial where there is none."""
    value = row.estimate if row.estimate is not None else row.val_bpb
    return float("nan") if value is None else value


def dress(axes: Axes, decided: Sequence[ExperimentRow], keeps: Sequence[ExperimentRow]) -> None:
    """Title and axes."""
    from matplotlib.ticker import MaxNLocator

    count = sum(row.number > 0 for row in decided)
    title = f"{count} experiments"
    if keeps:
        title += (
            f", {len(keeps) - 1} kept: {best_of(keeps[0]):.4f} → {best_of(keeps[-1]):.4f} bits per byte (estimated)"
        )
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.set_xlabel("experiment", color=INK)
    axes.set_ylabel("validation bits per byte (lower is better)", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def add_legend(figure: Figure, axes: Axes) -> None:
    """One line below the picture."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower right",
            ncols=len(handles),
            frameon=False,
            fontsize=8,
            handletextpad=0.4,
            columnspacing=1.4,
        )
