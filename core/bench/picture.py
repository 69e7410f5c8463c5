"""Draw a comparison: speeds, and the loss against tokens and against seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.core.bench.compare import Comparison
from autoresearch.core.bench.measure import BackendMeasurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1b7f4d", "#c8502f")
INK, GRID = "#2b2f36", "#e6e9ed"


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture to `path` (PNG, 1600 x 600)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(10.67, 4.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    speed, by_tokens, by_seconds = figure.subplots(1, 3, width_ratios=(1, 2, 2))
    draw_speed(speed, comparison.sides)
    for axes, along in ((by_tokens, "tokens"), (by_seconds, "seconds")):
        for side, colour in zip(comparison.sides, COLOURS, strict=True):
            for index, curve in enumerate(side.curves):
                label = side.backend if index == 0 else None
                axes.plot(getattr(curve, along), curve.loss, color=colour, linewidth=1.1, alpha=0.85, label=label)
        axes.set_xlabel("training tokens" if along == "tokens" else "seconds of training", fontsize=9, color=INK)
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    by_tokens.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_tokens.set_ylabel("training loss, nats a token", fontsize=9, color=INK)
    for axes in (speed, by_tokens, by_seconds):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=GRID)
    first, second = comparison.sides
    figure.suptitle(
        f"{first.backend} and {second.backend} on {first.hardware.place()}. In float32, the same weights: logits "
        f"{comparison.parity.logits:.0e} apart, losses of {len(comparison.parity.steps)} steps "
        f"{comparison.parity.losses_apart:.0e}",
        fontsize=9,
        color=INK,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_speed(axes: Axes, sides: tuple[BackendMeasurement, BackendMeasurement]) -> None:
    """Draw each side's median tokens per second, labelled with its share of the measured peak."""
    for place, (side, colour) in enumerate(zip(sides, COLOURS, strict=True)):
        speed, mfu, bpb = (side.median(name) or 0.0 for name in ("tokens_per_second", "mfu", "val_bpb"))
        axes.bar(place, speed / 1000, color=colour, width=0.6)
        words = f"{mfu:.0%} of\n{side.precision} peak\n{bpb:.3f} bpb" if mfu else f"{bpb:.3f} bpb"
        axes.text(place, speed / 1000, words, ha="center", va="bottom", fontsize=7.5, color=INK)
    axes.set_xticks(range(len(sides)), [side.backend for side in sides])
    axes.set_ylabel("thousand tokens a second", fontsize=9, color=INK)
    axes.margins(x=0.12, y=0.22)
