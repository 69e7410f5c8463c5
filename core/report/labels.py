"""Words beside points in a picture, where they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

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
"""Offsets from the point, and which side of the words is there; the first that is free is taken."""
CLEAR = 3.0
"""Pixels between words and what they must not cover."""


class Labels:
    """Puts words into axes whose layout is settled."""

    def __init__(self, axes: Axes, stairs: Sequence[Point], dots: Sequence[Point]) -> None:
        """`stairs` are the corners of a line of level and upright pieces; both in data coordinates."""
        self.axes = axes
        self._taken = [self._around([here, there]) for here, there in pairwise(stairs)]
        self._taken += [self._around([dot], 5.0) for dot in dots]

    def add(self, words: str, at: Point, colour: str) -> bool:
        """Write the words beside a point; False when there is no room for them."""
        from matplotlib.patheffects import withStroke

        label = self.axes.annotate(
            words,
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

    def _around(self, points: Sequence[Point], margin: float = CLEAR) -> Bbox:
        from matplotlib.transforms import Bbox

        found = self.axes.transData.transform(points)
        (x0, y0), (x1, y1) = found.min(axis=0), found.max(axis=0)
        return Bbox.from_extents(x0 - margin, y0 - margin, x1 + margin, y1 + margin)


def corners(steps: Sequence[Point], end: float) -> list[Point]:
    """Where a line turns that keeps each value until the next one comes, up to `end`."""
    found: list[Point] = []
    for x, y in steps:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return [*found, (end, found[-1][1])] if found else []
