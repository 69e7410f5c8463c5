"""The report's pictures: every experiment of a run, and what changes gained on another device against here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoresearch.core.judge.race import FOR_LESS_CODE
from autoresearch.core.proposal import TITLE
from autoresearch.core.report.wording import counted, one_line, shortened
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.transfers import Transfer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

BEST, DISCARD, FAILED, INK, GRID = "#1b7f4d", "#a9b2bd", "#c8502f", "#2b2f36", "#e6e9ed"
MAX_LABELS, MAX_DOTS = 12, 400
"""Number of kept changes that get a label, and of dots above which labels may cover some."""
WORST_SHOWN = 1.5
"""Multiple of the run's whole gain: results further than that above the start are drawn at the edge."""
MAX_TRANSFER_LABELS = 12
MIN_TRANSFERS = 3
"""Number of changes tried on both devices below which the table says as much as a picture."""


@dataclass(frozen=True)
class Format:
    """A size of the progress picture."""

    inches: tuple[float, float]
    dpi: int
    label_characters: int
    """Longest description beside a kept change."""
    legend_columns: int
    break_title: bool
    """True to write the title on two lines."""


WIDE = Format((10.67, 6.0), 150, 40, 9, break_title=False)
"""1600 x 900 pixels, for a page or a slide."""
NARROW = Format((3.6, 4.6), 200, 20, 2, break_title=True)
"""720 x 920 pixels, of which text stays readable on a phone."""
Point = tuple[float, float]
Place = tuple[float, float, Literal["left", "center", "right"], Literal["bottom", "top"]]
PLACES: tuple[Place, ...] = (
    (7, 6, "left", "bottom"),
    (7, 20, "left", "bottom"),
    (-7, -6, "right", "top"),
    (-7, 6, "right", "bottom"),
    (7, 34, "left", "bottom"),
    (-7, -20, "right", "top"),
    (7, -6, "left", "top"),
)
"""Places for a label, tried in order: offset from its dot in points, and the label's side that lies there."""
CLEARANCE = 3.0
"""Pixels between a label and anything that it must not cover."""


# ---- every experiment of a run


def draw_progress(
    rows: Sequence[ExperimentRow],
    means: Mapping[int, float],
    path: Path,
    yardsticks: Mapping[str, float] | None = None,
    shape: Format = WIDE,
) -> None:
    """Write the picture of the decided experiments to `path` (PNG).

    `means` are the measured means of kept experiments by number (see `core.store.headline`), `yardsticks` are bits per
    byte that compressors reach on the same text, by name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    decided = [row for row in rows if row.state == "decided"]
    figure = Figure(figsize=shape.inches, dpi=shape.dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    keeps = [row for row in decided if row.status == "keep" and row.val_bpb is not None]
    steps = [(float(row.number), means.get(row.number, row.val_bpb or 0.0)) for row in keeps]
    low, high = value_range(decided, steps, sigma_of(decided) or 0.0)
    axes.set_ylim(low, high)
    last = max((row.number for row in decided), default=0)
    axes.set_xlim(-0.6, last + max(0.6, 0.06 * last))
    draw_yardsticks(axes, yardsticks or {}, low, high)
    draw_others(axes, decided, low, high)
    style_axes(axes, decided, steps, broken=shape.break_title)
    draw_best(axes, keeps, steps, last, sigma_of(decided))
    add_legend(figure, axes, shape.legend_columns)
    figure.draw_without_rendering()  # settles the layout, so that labels can be measured
    label_keeps(axes, keeps, steps, decided, shape.label_characters)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def sigma_of(decided: Sequence[ExperimentRow]) -> float | None:
    """Give the noise (standard deviation of one trial) that the judge estimated last; None before that."""
    known = [row.judged["sigma"] for row in decided if row.judged.get("sigma") is not None]
    return known[-1] if known else None


def value_range(decided: Sequence[ExperimentRow], steps: Sequence[Point], sigma: float = 0.0) -> tuple[float, float]:
    """Choose the bits per byte at the bottom and top: kept changes fit, and results that are not absurdly worse.

    `steps` are number and measured mean of every kept change.
    """
    values = [row.val_bpb for row in decided if row.val_bpb is not None]
    if not values:
        return 0.0, 1.0
    kept = [row.val_bpb for row in decided if row.status == "keep" and row.val_bpb is not None]
    kept += [value + sign * sigma for _, value in steps for sign in (-1, 1)]
    best, start = min(kept or values), max(kept or values)
    reach = max(start - best, 0.01 * best)
    bottom = min([best, *(value for value in values if value >= best - reach)])
    top = max([start, *(value for value in values if value <= start + WORST_SHOWN * reach)])
    margin = 0.1 * max(top - bottom, 0.01 * best)
    return bottom - margin, top + margin


def draw_yardsticks(axes: Axes, yardsticks: Mapping[str, float], low: float, high: float) -> None:
    """Draw a dashed line for every compressor whose figure is within the picture."""
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
    """Draw discarded changes as dots; results off the scale and failures become marks at the upper edge."""
    edge = high - 0.015 * (high - low)
    discards = [row for row in decided if row.status == "discard" and row.val_bpb is not None]
    inside = [row for row in discards if row.val_bpb is not None and row.val_bpb < high]
    above = [row for row in discards if row not in inside]
    stopped = [row for row in decided if row.status == "stopped"]
    failed = [row for row in decided if row.status in ("crash", "invalid", "timeout")]
    # An empty group would still get its line in the legend.
    for group, marker, colour, label in (
        (inside, "o", DISCARD, "discarded"),
        (above, "^", DISCARD, "discarded, off the scale"),
        (stopped, "v", DISCARD, "stopped early"),
        (failed, "x", FAILED, "crash, invalid, timeout"),
    ):
        if group:
            at = [edge if group is not inside or row.val_bpb is None else row.val_bpb for row in group]
            axes.scatter([row.number for row in group], at, s=26, marker=marker, color=colour, label=label, zorder=3)


def draw_best(
    axes: Axes, keeps: Sequence[ExperimentRow], steps: Sequence[Point], last: int, sigma: float | None
) -> None:
    """Draw the best mean so far as a step line within the noise, with each kept change where its step begins.

    A change that was kept for less code may lie above the one before it, so that it has a mark of its own.
    """
    if not keeps:
        return
    x = [*(number for number, _ in steps), last]
    y = [*(value for _, value in steps), steps[-1][1]]
    if sigma:
        low, high = ([value + sign * sigma for value in y] for sign in (-1, 1))
        axes.fill_between(
            x,
            low,
            high,
            step="post",
            color=BEST,
            alpha=0.12,
            linewidth=0,
            label="± noise",
            zorder=1.5,
        )
    axes.step(x, y, where="post", color=BEST, linewidth=1.8, label="best measured mean", zorder=4)
    simpler = [step for row, step in zip(keeps, steps, strict=True) if is_simpler(row)]
    better = [step for row, step in zip(keeps, steps, strict=True) if not is_simpler(row)]
    for points, marker, label in ((better, "o", "kept"), (simpler, "D", "kept for less code")):
        if points:
            x, y = map(list, zip(*points, strict=True))
            axes.scatter(x, y, s=52, marker=marker, color=BEST, edgecolor="white", linewidth=1.2, label=label, zorder=5)


def is_simpler(row: ExperimentRow) -> bool:
    """Tell whether a change was kept because its file is shorter and no worse."""
    return (row.reason or "").startswith(FOR_LESS_CODE)


def label_keeps(
    axes: Axes,
    keeps: Sequence[ExperimentRow],
    steps: Sequence[Point],
    decided: Sequence[ExperimentRow],
    characters: int,
) -> None:
    """Write the descriptions of the biggest steps beside them, except those that would cover something."""
    if not keeps:
        return
    dots = [(float(row.number), row.val_bpb) for row in decided if row.val_bpb is not None and row.status != "keep"]
    dots += steps
    # Among very many dots, labels may cover some: each is one of hundreds.
    labels = Labels(axes, corners(steps, decided[-1].number), dots if len(dots) <= MAX_DOTS else [])
    gains = [float("inf"), *(before[1] - after[1] for before, after in pairwise(steps))]
    by_gain = sorted(zip(gains, keeps, steps, strict=True), key=lambda one: -one[0])
    for _, row, step in by_gain[:MAX_LABELS]:
        name = row.parameters.get(TITLE) or row.parameters.get("edit") or row.hypothesis.split(": ")[0]
        text = shortened(("less code: " if is_simpler(row) else "") + str(name), characters)
        labels.add(f"{step[1]:.4f}  {text}", step, INK)


def style_axes(axes: Axes, decided: Sequence[ExperimentRow], steps: Sequence[Point], *, broken: bool) -> None:
    """Set the title, in two lines if `broken`, and the axes."""
    from matplotlib.ticker import MaxNLocator

    count = sum(row.number > 0 for row in decided)
    title = counted(count, "experiment")
    if steps:
        first, best = steps[0][1], steps[-1][1]
        title += f", {len(steps) - 1} kept" + ("\n" if broken else ": ")
        title += f"{first:.4f} → {best:.4f} bits per byte (measured mean)"
    axes.set_title(title, loc="left", fontsize=8 if broken else 11, color=INK, pad=10)
    axes.set_xlabel("experiment", color=INK)
    axes.set_ylabel("validation bits per byte (lower is better)", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def add_legend(figure: Figure, axes: Axes, columns: int = WIDE.legend_columns) -> None:
    """Put the legend below the picture, so many entries a line."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower right",
            ncols=min(columns, len(handles)),
            frameon=False,
            fontsize=8,
            handletextpad=0.4,
            columnspacing=1.4,
        )


# ---- gains on another device and here


def quadrants(transfers: Sequence[Transfer], here: str) -> bytes | None:
    """Draw each change that has a gain there and one here as a dot: a PNG of 1000 x 700, None below MIN_TRANSFERS.

    `here` is this run's device.
    """
    dots = [one for one in transfers if one.origin.delta is not None and one.delta is not None]
    if len(dots) < MIN_TRANSFERS:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.67, 4.67), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for held, colour, label in ((True, BEST, "held here"), (False, DISCARD, "did not hold")):
        some = [one for one in dots if (one.outcome == "keep") == held]
        if some:
            x, y = zip(*((_gain(one.origin.delta), _gain(one.delta)) for one in some), strict=True)
            axes.scatter(x, y, s=46, color=colour, edgecolor="white", linewidth=1.0, label=label, zorder=3)
    _style_transfer_axes(axes, dots, here)
    add_legend(figure, axes)
    if len(dots) <= MAX_TRANSFER_LABELS:
        for one in dots:
            at = (_gain(one.origin.delta), _gain(one.delta))
            axes.annotate(f"#{one.experiment}", at, (6, 4), textcoords="offset points", fontsize=8, color=INK)
    kept = io.BytesIO()
    figure.savefig(kept, format="png")
    return kept.getvalue()


def _gain(delta: float | None) -> float:
    return -(delta or 0.0)


def _style_transfer_axes(axes: Axes, dots: Sequence[Transfer], here: str) -> None:
    """Set axes through zero, draw the line of equal gains, and name both devices."""
    there = sorted({one_line(one.origin.device, 40) for one in dots})
    axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
    most = max(_gain(one.origin.delta) for one in dots)
    axes.plot([0, most], [0, most], color=INK, ls=(0, (5, 4)), lw=0.9, alpha=0.5, label="as much as there", zorder=1)
    axes.set_xlabel(f"gained on {', '.join(there)} (bits per byte)", color=INK, parse_math=False)
    axes.set_ylabel(f"gained here, on {one_line(here, 40)}", color=INK, parse_math=False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# ---- labels beside dots


class Labels:
    """Labels beside dots, in axes whose layout is settled."""

    def __init__(self, axes: Axes, stairs: Sequence[Point], dots: Sequence[Point]) -> None:
        """Keep clear of a line (`stairs`: the corners of level and upright pieces) and of dots, in data coordinates."""
        self.axes = axes
        self._taken = [self._around([here, there]) for here, there in pairwise(stairs)]
        self._taken += [self._around([dot], 5.0) for dot in dots]

    def add(self, text: str, at: Point, colour: str) -> bool:
        """Write a label beside a point; returns False when there is no room for it."""
        from matplotlib.patheffects import withStroke

        label = self.axes.annotate(
            text,
            at,
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=6,
        )
        frame = self.axes.get_window_extent().padded(-2.0)
        for x, y, horizontal, vertical in PLACES:
            label.set_position((x, y))
            label.set_horizontalalignment(horizontal)
            label.set_verticalalignment(vertical)
            box = label.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in self._taken):
                self._taken.append(box)
                return True
        label.remove()
        return False

    def _around(self, points: Sequence[Point], margin: float = CLEARANCE) -> Bbox:
        from matplotlib.transforms import Bbox

        found = self.axes.transData.transform(points)
        (x0, y0), (x1, y1) = found.min(axis=0), found.max(axis=0)
        return Bbox.from_extents(x0 - margin, y0 - margin, x1 + margin, y1 + margin)


def corners(steps: Sequence[Point], end: float) -> list[Point]:
    """List where a line turns that holds each value until the next one, up to `end`."""
    found: list[Point] = []
    for x, y in steps:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return [*found, (end, found[-1][1])] if found else []
