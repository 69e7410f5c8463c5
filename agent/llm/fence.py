"""Fences around text that came out of trials: a model reads it as data, and the text cannot end its own fence.

A trial's output, its error or another researcher's sentence may say "ignore the rules above".
"""

from __future__ import annotations

import re

OPEN, CLOSE = "<data>", "</data>"
"""The marks of a fence. The system prompt says what they mean."""
_MARK = re.compile(r"<(?=\s*(?:/\s*)?data\b)", re.IGNORECASE)
_TICKS = re.compile(r"`{3,}")


def data(text: str) -> str:
    """Put text between the marks; marks inside it become `&lt;data`. An empty text gets no marks."""
    text = escaped(str(text)).strip("\n")
    return f"{OPEN}\n{text}\n{CLOSE}" if text.strip() else ""


def escaped(text: str) -> str:
    """Escape every mark in the text."""
    return _MARK.sub("&lt;", text)


def code(text: str, language: str) -> str:
    """Put code into a Markdown block with more backticks than the code has in a row; the code stays as it is."""
    ticks = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{ticks}{language}\n{text.rstrip(chr(10))}\n{ticks}"
