"""The edit of an experiment as a diff, line by line, with Python's syntax marked.

The text is a researcher's, so the result is data, and the page inserts it as text. The size is bounded before anything
parses it, and control characters are made visible.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from autoresearch.core.report.wording import visible

CONTEXT_LINES = 3
MAX_LINES = 4000
"""Lines shown of one edit."""
MAX_COMPARED = 4000
"""Lines between the first and the last difference up to which difflib compares them one by one."""
MAX_CHARACTERS = 1000
"""Characters shown of one line."""
MAX_LEXED = 64 * 2**10
"""Characters up to the last line shown beyond which the syntax is not marked: that would take seconds."""
CACHED = 8
"""Edits held in memory: marking two whole train files takes half a second, and a page asks for the same edit again."""
_KINDS = {
    "Token.Keyword": "keyword",
    "Token.Literal.String": "string",
    "Token.Literal.Number": "number",
    "Token.Comment": "comment",
    "Token.Name.Function": "name",
    "Token.Name.Class": "name",
    "Token.Name.Decorator": "name",
    "Token.Name.Builtin": "builtin",
    "Token.Operator.Word": "keyword",
}
Part = tuple[str, str]
"""A piece of a line: its kind of token (empty for plain text) and its text."""


@dataclass(frozen=True)
class DiffLine:
    """One line of a diff."""

    mark: str
    """"+", "-", " ", or "@" between two places."""
    number: int | None
    """Line number in the old file for "-", in the new file otherwise; None for "@"."""
    parts: tuple[Part, ...]


@lru_cache(maxsize=CACHED)
def highlighted_diff(before: str, after: str) -> tuple[DiffLine, ...]:
    """Compare two texts: every change with CONTEXT_LINES around it, at most MAX_LINES in all."""
    old, new = _lines(before), _lines(after)
    shown: list[tuple[str, int, list[str]]] = []
    for place, (first, opcodes) in enumerate(_places(old, new)):
        shown += [("@", 0, [])] if place or first else []
        for tag, i, i_end, j, j_end in opcodes:
            if tag != "equal":
                shown += [("-", n, old) for n in range(i, i_end)]
            shown += [(" " if tag == "equal" else "+", n, new) for n in range(j, j_end)]
    shown = shown[:MAX_LINES]
    lexed = {}
    for lines in (old, new):
        needed = max((n for mark, n, these in shown if these is lines and mark != "@"), default=-1)
        lexed[id(lines)] = _lexed(lines[: needed + 1])
    return tuple(
        DiffLine(mark, None, ()) if mark == "@" else DiffLine(mark, n + 1, tuple(lexed[id(lines)][n]))
        for mark, n, lines in shown
    )


def _lines(text: str) -> list[str]:
    def short(line: str) -> str:
        more = len(line) - MAX_CHARACTERS
        return line if more <= 0 else f"{line[:MAX_CHARACTERS]} … {more} more characters"

    return [short(line) for line in visible(text).split("\n")]


Opcode = tuple[str, int, int, int, int]


def _places(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, list[Opcode]]]:
    """Group the differences by place: the old file's first line of each, and difflib's opcodes."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    if head == len(old) == len(new):
        return []
    if max(len(old), len(new)) - head - tail > MAX_COMPARED:
        # difflib's time may grow with the square of this. So many lines are a rewrite, and are shown as one.
        changed = ("replace", head, len(old) - tail, head, len(new) - tail)
        return [(head, [changed])]
    groups = difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT_LINES)
    return [(group[0][1], group) for group in groups]


def _lexed(lines: Sequence[str]) -> list[list[Part]]:
    """Split every line into parts by kind of token."""
    if sum(map(len, lines)) > MAX_LEXED:
        return [[("", line)] for line in lines]
    from pygments import lex
    from pygments.lexers import PythonLexer

    result: list[list[Part]] = [[]]
    for token, text in lex("\n".join(lines) + "\n", PythonLexer(stripnl=False, ensurenl=False)):
        kind = _kind(token)
        for k, piece in enumerate(text.split("\n")):
            if k:
                result.append([])
            if piece:
                _append(result[-1], kind, piece)
    return result


@cache
def _kind(token: object) -> str:
    """Return the kind of a type of token: a file has tens of thousands of tokens, and a few dozen types."""
    return next((found for name, found in _KINDS.items() if str(token).startswith(name)), "")


def _append(parts: list[Part], kind: str, text: str) -> None:
    """Add a part, joined to its neighbour of the same kind: that makes fewer elements on the page."""
    if parts and parts[-1][0] == kind:
        parts[-1] = (kind, parts[-1][1] + text)
    else:
        parts.append((kind, text))
