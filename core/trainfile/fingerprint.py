"""The fingerprint of a program: it tells whether two train files are the same program."""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache

from autoresearch.core.trainfile.constants import literal
from autoresearch.core.trainfile.parsing import parse
from autoresearch.core.trainfile.trees import UNPARSABLE, is_bare_string, statements


def fingerprint(source: str) -> str:
    """Hash the program that a source is: SHA-256, in hexadecimal.

    Equal for two sources that differ only in comments, docstrings, layout, or how a number is written: `16`, `0x10`
    and `2**4` are one number, `16.0` is another. A source that is no Python is hashed as text.
    """
    try:
        found = statements(source)
        normal = None if found is None else b"".join(digest for text in found for digest in _digests(text))
    except UNPARSABLE:
        normal = None
    if normal is None:
        normal = b"text:" + source.encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(normal).hexdigest()


class _Normaliser(ast.NodeTransformer):
    """Drops docstrings and computes arithmetic on literals."""

    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [statement for statement in node.body if not is_bare_string(statement)]
        if isinstance(node, ast.BinOp | ast.UnaryOp):
            value = literal(node)
            if value is not None:
                return ast.Constant(value)
        return node


@lru_cache(maxsize=4096)
def _digests(text: str) -> tuple[bytes, ...]:
    """Return one digest for each statement of a text. Cached, because the sources of a run share most statements."""
    tree = parse(text)
    _Normaliser().visit(tree)  # changes the module in place
    dumps = (ast.dump(node).encode("utf-8", errors="surrogatepass") for node in tree.body)
    return tuple(hashlib.sha256(dump).digest() for dump in dumps)
