"""The fingerprint of a train file: equal for two files that are the same program."""

from __future__ import annotations

import ast
import hashlib


def fingerprint(source: str) -> str:
    """Return a digest that is equal for sources which differ only in comments, docstrings and formatting.

    It is the SHA-256 of the syntax tree without docstrings, in hex; of the text itself where that does not parse.
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
    """Say whether a statement is a docstring, or a string that stands alone as a comment."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
