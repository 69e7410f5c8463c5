"""When two train files are the same program."""

from __future__ import annotations

import ast
import hashlib


def fingerprint(source: str) -> str:
    """Equal for sources that differ only in comments, docstrings and formatting.

    The SHA-256 of the syntax tree; of the text itself where that does not parse.
    """
    try:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                node.body = [statement for statement in node.body if not _is_text(statement)]
        normal = ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        normal = source
    return hashlib.sha256(normal.encode("utf-8", errors="surrogatepass")).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, or a string left standing alone as a comment."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
