"""Words of others, such as a model, a train file or a server, without the characters that would steer a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Put a blank in the place of each character that is not printed."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def printable_line(text: str) -> str:
    """Put a text on one line: one blank between two words, and no character that is not printed."""
    return " ".join(printable(text).split())
