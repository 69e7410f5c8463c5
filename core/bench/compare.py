"""Compare two backends on the same work, taking turns so that a machine that slows down slows both; draw the result."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoresearch.core.bench.measure import BackendBench, BackendMeasurement, Tell, describe, find_peak
from autoresearch.core.bench.parity import Parity, find_parity
from autoresearch.core.bench.work import Work
from autoresearch.core.data.manifest import Prepared

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TAIL = 0.1
"""Share of a curve's tokens, at its end, over which the loss is averaged for the comparison."""
COLOURS = ("#1b7f4d", "#c8502f")
INK, GRID = "#2b2f36", "#e6e9ed"


@dataclass(frozen=True)
class Comparison:
    """The measurements of two backends and their comparison."""

    sides: tuple[BackendMeasurement, BackendMeasurement]
    parity: Parity
    equal_tokens: float
    """Number of tokens that the slower side saw in its shortest trial."""
    losses: tuple[float, float]
    """Training loss of each side after `equal_tokens`. Schedules follow the remaining time, not the tokens, so the
    faster side's learning rates are still high at this point."""

    def as_json(self) -> dict[str, Any]:
        """Return the object that --json prints."""
        names = [side.backend for side in self.sides]
        return {
            "backends": {side.backend: side.as_json() for side in self.sides},
            "parity": {
                "precision": "fp32",
                "logits_max_abs": self.parity.logits,
                "losses_max_relative": self.parity.losses_apart,
                "steps": self.parity.steps,
                "losses": dict(zip(names, self.parity.losses, strict=True)),
            },
            "at_equal_tokens": {"tokens": self.equal_tokens, "loss": dict(zip(names, self.losses, strict=True))},
        }


def compare(
    works: tuple[Work, Work],
    prepared: Prepared,
    bench: BackendBench,
    seconds: float,
    seeds: list[int],
    tell: Tell,
    cancel: threading.Event,
) -> Comparison:
    """Measure both backends, one trial each per seed. Raises `TrialError` when a trial does not end well.

    `seconds` is the training time of a trial; `tell` is called with a line for each step.
    """
    tell("parity: the same weights and batches through both")
    parity = find_parity(works, prepared, cancel)
    peaks = []
    for work in works:
        tell(f"{work.backend}: measuring matrix products")
        peaks.append(find_peak(work.backend, tell))
    done: list[list[Any]] = [[], []]
    for seed in seeds:
        for work, (device, peak), mine in zip(works, peaks, done, strict=True):
            tell(f"{work.backend}: training for {seconds:g} s, seed {seed}")
            mine.append(bench.trial(work, seconds, seed, device, peak))
    first, second = (
        BackendMeasurement(
            work.backend, device, describe(device), peak, [row for row, _ in mine], [curve for _, curve in mine]
        )
        for work, (device, peak), mine in zip(works, peaks, done, strict=True)
    )
    tokens = min((curve.tokens[-1] for side in (first, second) for curve in side.curves if curve.tokens), default=0.0)
    return Comparison((first, second), parity, tokens, (loss_at(first, tokens), loss_at(second, tokens)))


def loss_at(side: BackendMeasurement, tokens: float) -> float:
    """Average a side's loss over its trials and over the last TAIL of `tokens` tokens. NaN without points.

    Between two points of a curve the loss is interpolated linearly.
    """
    places = np.linspace((1 - TAIL) * tokens, tokens, 11)
    curves = [curve for curve in side.curves if curve.tokens]
    return float(np.mean([np.interp(places, curve.tokens, curve.loss) for curve in curves])) if curves else float("nan")


# ---- the picture: speeds, and the loss against tokens and against seconds


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
