"""Parsing Python, one thread at a time.

Up to Python 3.12 the parser counts the depth of a tree in one place for all threads. Where another thread gets its turn
while a tree is made, both parse on with a wrong count, and one ends with a SystemError (cpython issue 106905). Trials
that run side by side and researchers that think ahead read train files in threads.
"""

from __future__ import annotations

import ast
from threading import Lock

_LOCK = Lock()


def parse(source: str) -> ast.Module:
    """Parse a module. Raises what `ast.parse` does for text that is no Python."""
    with _LOCK:
        return ast.parse(source)


def parse_expression(text: str) -> ast.Expression:
    """Parse one expression. Raises what `ast.parse` does."""
    with _LOCK:
        return ast.parse(text, mode="eval")
