"""Syntax trees of train files, each piece of text parsed once: the sources of a run differ in few statements."""

from __future__ import annotations

import ast
from functools import lru_cache

from autoresearch.agent.syntax.constants import split_source


@lru_cache(maxsize=64)  # the menu tries every edit on the same few sources, again and again
def parsed(source: str) -> ast.Module | None:
    """The tree, not to be changed; None when the source is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def statements(source: str) -> tuple[str, ...] | None:
    """The text of every top-level statement, decorators included; comments between them are left out.

    One text has several statements where they share a line. None when the source is no Python. Most sources of a run
    differ in the constants block only, so the long parts around it are read once.
    """
    block = split_source(source)
    parts = () if block is None else tuple(_statements(part) for part in (block.head, block.body, block.tail))
    if not parts or None in parts:
        return _statements(source)
    return tuple(text for part in parts for text in part or ())


@lru_cache(maxsize=512)
def _statements(source: str) -> tuple[str, ...] | None:
    tree = parsed(source)
    if tree is None:
        return None
    # As the parser counts lines, which is not as `str.splitlines` does.
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    texts, end = [], 0
    for node in tree.body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        last = node.end_lineno or node.lineno
        if first > end:
            texts.append("\n".join(lines[first - 1 : last]))
        elif last > end:
            return (source,)  # a statement that begins on another's last line: all of them are taken as one
        end = last
    return tuple(texts)


def is_bare_string(statement: ast.stmt) -> bool:
    """A docstring, or a string left standing alone as a comment."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
