"""The first check of a train file, without running it: an obvious mistake costs no device time."""

from __future__ import annotations

import ast
from collections.abc import Collection

from autoresearch.core.trainfile import parsing

SIZE_LIMIT_BYTES = 256 * 1024
"""Largest train file."""
FUNCTIONS = ("build", "train", "logits")
"""Functions of the contract (see docs/contract.md)."""


class SourceFault(ValueError):  # noqa: N818
    """A train file that cannot be used, with the reason in words."""


def vocab_size_of(source: str) -> int:
    """Return the literal that VOCAB_SIZE is set to. Raises `SourceFault` when the file does not parse or has none."""
    nodes = [node for node in parse(source).body if "VOCAB_SIZE" in _assigned(node)]
    if not nodes:
        raise SourceFault("the train file does not set VOCAB_SIZE at its top level")
    literal = getattr(nodes[-1], "value", None)
    value = literal.value if isinstance(literal, ast.Constant) else None
    if type(value) is not int:
        raise SourceFault("VOCAB_SIZE must be set to a literal integer")
    return value


def check_source(source: str, vocabularies: Collection[int]) -> int:
    """Check a train file, and return its VOCAB_SIZE. Raises `SourceFault` with what is wrong.

    It must have at most `SIZE_LIMIT_BYTES`, parse, define build, train and logits, and name one of these vocabularies.
    """
    size = len(source.encode("utf-8", errors="replace"))
    if size > SIZE_LIMIT_BYTES:
        raise SourceFault(f"the train file has {size} bytes; the limit is {SIZE_LIMIT_BYTES}")
    tree = parse(source)
    defined = {name for node in tree.body for name in _defined(node)}
    missing = [name for name in FUNCTIONS if name not in defined]
    if missing:
        raise SourceFault(f"the train file does not define {', '.join(missing)} at its top level")
    vocab = vocab_size_of(source)
    if vocab not in vocabularies:
        prepared = ", ".join(str(size) for size in sorted(vocabularies))
        raise SourceFault(f"VOCAB_SIZE is {vocab}, which is not a prepared vocabulary ({prepared})")
    return vocab


def parse(source: str) -> ast.Module:
    """Parse a source. Raises `SourceFault` where it is no Python, or too deep or too large to parse."""
    try:
        return parsing.parse(source)
    except SyntaxError as error:
        where = "" if error.lineno is None else f" in line {error.lineno}"  # a null byte has no line
        raise SourceFault(f"syntax error{where}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        why = str(error) or "it is nested too deeply"  # the parser says nothing where its own stack is full
        raise SourceFault(f"the train file cannot be parsed: {why}") from error


def _assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _defined(node: ast.stmt) -> set[str]:
    return {node.name} if isinstance(node, ast.FunctionDef) else _assigned(node)
