"""How numbers and other people's text are put into one line."""

from __future__ import annotations

import re

BAR_CELLS = 16
_COLOURS = re.compile("\x1b\\[[0-9;:]*m")


def one_line(text: str, limit: int | None = None) -> str:
    """The text on one line, without control characters (a researcher's words may carry a terminal's escapes)."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    words = " ".join(text.split())
    return words if limit is None or len(words) <= limit else words[: limit - 1].rstrip() + "…"


def visible(text: str) -> str:
    """Text of several lines in which no character can steer who shows it, or change the order of what is read.

    Colours go, control characters become their pictures, invisible ones their numbers; line ends are newlines.
    """
    text = _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char.isprintable() or char in "\n\t":
        return char
    code = ord(char)
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def compact(number: float) -> str:
    """12 -> "12", 5400 -> "5.4k", 1650000 -> "1.65M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def bar(share: float) -> str:
    """A bar of BAR_CELLS cells, `share` of them full."""
    full = round(min(max(share, 0.0), 1.0) * BAR_CELLS)
    return "━" * full + "─" * (BAR_CELLS - full)


def span(seconds: float) -> str:
    """A duration: 42 -> "42 s", 150 -> "2 min 30 s", 7260 -> "2 h 1 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def dollars(usd: float | None) -> str:
    """An amount, or that it is not known."""
    if usd is None:
        return "not known"
    return "$0" if usd == 0 else f"${usd:.2f}" if usd >= 0.1 else f"${usd:.4f}"
