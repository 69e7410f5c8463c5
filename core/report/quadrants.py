"""What findings gained where they were made, against what they gained here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoresearch.core.report.figures import BEST, DISCARD, GRID, INK, add_legend
from autoresearch.core.report.wording import one_line
from autoresearch.core.findings.transfers import Transfer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 3
"""Below so many dots the table says as much."""
MAX_LABELS = 12


def quadrants(transfers: Sequence[Transfer], here: str) -> bytes | None:
    """A PNG (1000 x 700), one dot for every finding that has a gain there and one here; None where they are few.

    `here` is this run's device.
    """
    dots = [one for one in transfers if one.origin.delta is not None and one.delta is not None]
    if len(dots) < FEWEST:
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
    _dress(axes, dots, here)
    add_legend(figure, axes)
    if len(dots) <= MAX_LABELS:
        for one in dots:
            at = (_gain(one.origin.delta), _gain(one.delta))
            axes.annotate(f"#{one.experiment}", at, (6, 4), textcoords="offset points", fontsize=8, color=INK)
    kept = io.BytesIO()
    figure.savefig(kept, format="png")
    return kept.getvalue()


def _gain(delta: float | None) -> float:
    return -(delta or 0.0)


def _dress(axes: Axes, dots: Sequence[Transfer], here: str) -> None:
    """Axes through nothing, the line of equal gains, and whose gains these are."""
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
