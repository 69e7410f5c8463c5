"""Tells whether two train files are the same program, whatever their comments and layout."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache

from autoresearch.agent.syntax.constants import literal, read_constants, split_source
from autoresearch.agent.syntax.trees import is_bare_string, statements


class _Normaliser(ast.NodeTransformer):
    """Drops docstrings and computes plain arithmetic: `2**4` and `16` are one number."""

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
def _statement_key(text: str) -> str:
    tree = ast.parse(text)
    _Normaliser().visit(tree)  # in place: the module itself stays
    return "\n".join(ast.dump(node) for node in tree.body)


@lru_cache(maxsize=2048)
def _part_key(text: str) -> str | None:
    """Of its statements, each of which is read once however many sources have it."""
    found = statements(text)
    if found is None:
        return None
    keys = [key for statement in found if (key := _statement_key(statement))]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def tree_key(source: str) -> str:
    """Equal for two sources exactly when their syntax trees are, less docstrings, comments and positions.

    The parts around the constants block are keyed apart from it: most sources of a run differ in the block only, so
    the long parts are parsed once. A source that does not parse is keyed by its text.
    """
    block = split_source(source)
    parts = (source,) if block is None else (block.head, block.body, block.tail)
    keys = [_part_key(part) for part in parts]
    if None in keys:
        keys = [_part_key(source) or "text:" + hashlib.sha256(source.encode()).hexdigest()]
    return hashlib.sha256("/".join(str(key) for key in keys).encode()).hexdigest()


def tried_keys(sources: Iterable[str]) -> frozenset[str]:
    """The keys of all of these sources."""
    return frozenset(tree_key(source) for source in sources)


def structure_key(source: str) -> str:
    """Equal for two sources that differ in nothing but the values of their numeric constants."""
    block = split_source(source)
    if block is None:
        return tree_key(source)
    kinds = [
        (name, type(constant.value).__name__ if type(constant.value) in (int, float) else constant.value)
        for name, constant in sorted(read_constants(source).items())
    ]
    return f"{_part_key(block.head)}/{_part_key(block.tail)}/{kinds}"
