"""A block of lines at the foot of a terminal that changes in place.

Not rich.live.Live, which erases and rewrites the whole block at every refresh. Measured on an emulated terminal (see
test_screen.py), with one line of 21 changing: Live sends 1540 bytes a refresh, and after nearly every one of them some
unchanged line is blank or cut; this screen sends 55 bytes, and never touches an unchanged line. Over a slow
ssh connection that is the difference between flicker and none.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

UP, ERASE_LINE, ERASE_BELOW, HOME = "\x1b[{}A", "\x1b[K", "\x1b[J", "\x1b[H"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
"""Mark an update that a terminal should show all at once (synchronized output); older terminals ignore them."""


def is_drawable(console: Console) -> bool:
    """Tell whether lines can change in place there. FORCE_COLOR asks for colour, and makes no terminal of a file."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal


class Screen:
    """A block of lines, and lines that stay above it. The cursor waits below the block. Not thread-safe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Renders lines to text apart from the terminal, which may be gone by then.
        self._renderer = Console(
            file=io.StringIO(),
            force_terminal=True,
            color_system=console.color_system,  # type: ignore[arg-type]  # the name that it would have found itself
            no_color=console.no_color,
        )
        self._lines: list[str] = []
        self._size = console.size
        self._open = False

    def room(self) -> tuple[int, int]:
        """Give the columns and lines that a block may have now."""
        width, height = self._console.size
        # Some terminals wrap already in the last column; the last line is the cursor's.
        return max(width - 1, 10), max(height - 1, 1)

    def draw(self, lines: Sequence[Text], above: Sequence[Text] = ()) -> None:
        """Show this block in place of the last one, with new lines that stay above it."""
        size, out = self._console.size, []
        fresh = [self._rendered(line) for line in lines]
        if size != self._size and self._lines:  # the terminal has rewrapped the old block, nobody knows how
            out.append(HOME + ERASE_BELOW)
            self._lines = []
        elif above or len(fresh) < len(self._lines):
            out.append(self._up() + ERASE_BELOW)
            self._lines = []
        out += [f"{self._rendered(line)}\r\n" for line in above]
        out.append(self._changed(fresh))
        self._lines, self._size = fresh, size
        self._write("".join(out))

    def close(self, above: Sequence[Text] = ()) -> None:
        """Remove the block and leave the lines above it."""
        self.draw((), above)
        if self._open:
            self._write(SHOW_CURSOR)
            self._open = False

    def _changed(self, fresh: Sequence[str]) -> str:
        old = [*self._lines, *[None] * (len(fresh) - len(self._lines))]
        if all(a == b for a, b in zip(fresh, old, strict=True)):
            return ""
        return self._up() + "".join(
            "\n" if new == was else f"\r{new}{ERASE_LINE}\r\n" for new, was in zip(fresh, old, strict=True)
        )

    def _up(self) -> str:
        return "\r" + (UP.format(len(self._lines)) if self._lines else "")

    def _rendered(self, line: Text) -> str:
        with self._renderer.capture() as capture:
            self._renderer.print(line, end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        if not text:
            return
        if not self._open:
            self._open, text = True, HIDE_CURSOR + text
        try:
            self._console.file.write(f"{BEGIN}{text}{END}")
            self._console.file.flush()
        except (OSError, ValueError):
            pass  # the terminal is gone; the work goes on
