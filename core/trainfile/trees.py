"""Syntax trees of train files, each piece of text parsed once: the sources of a run differ in few statements."""

from __future__ import annotations

import ast
from functools import lru_cache

from autoresearch.core.trainfile.constants import split_source
from autoresearch.core.trainfile.parsing import parse

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Exceptions that `parse` raises for text that is no Python."""


@lru_cache(maxsize=64)  # the menu tries every edit on the same few sources, again and again
def parsed(source: str) -> ast.Module | None:
    """Parse a source, into a tree that must not be changed; None when it is no Python."""
    try:
        return parse(source)
    except UNPARSABLE:
        return None


def statements(source: str) -> tuple[str, ...] | None:
    """Cut a source into its top-level statements, decorators included and comments between them left out.

    Statements that share a line come as one text. None when the source is no Python.
    """
    # Most sources of a run differ in the constants block only, so the long parts around it are read once.
    split = split_source(source)
    parts = () if split is None else tuple(_statements(part) for part in (split.head, split.body, split.tail))
    if not parts or None in parts:
        return _statements(source)
    return tuple(text for part in parts for text in part or ())


@lru_cache(maxsize=512)
def _statements(source: str) -> tuple[str, ...] | None:
    tree = parsed(source)
    if tree is None:
        return None
    # Lines as the parser counts them, which is not as `str.splitlines` does.
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    texts, end = [], 0
    for node in tree.body:
        first, last = first_line(node) + 1, node.end_lineno or node.lineno
        if first > end:
            texts.append("\n".join(lines[first - 1 : last]))
        elif last > end:
            return (source,)  # a statement begins on the line where another of several lines ends: keep them together
        end = last
    return tuple(texts)


def first_line(node: ast.stmt) -> int:
    """Find the line, counted from 0, where a statement begins with its decorators."""
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) - 1


def is_bare_string(statement: ast.stmt) -> bool:
    """Tell whether a statement is a docstring, or a string left standing alone as a comment."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
