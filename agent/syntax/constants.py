"""Reads and rewrites the constants block of a train file.

The block is the lines between `# ---- constants` and `# ---- end of constants`: one `NAME = literal` a line.
Comments and layout survive a rewrite; only the literals change.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

Value = bool | int | float | str

_START = re.compile(r"^# ---- constants\b.*\n", re.MULTILINE)
_END = re.compile(r"^# ---- end of constants\b", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A train file in three parts; joined they are the file."""

    head: str
    """Up to and with the opening line."""
    body: str
    """The constants."""
    tail: str
    """From the closing line on."""


@dataclass(frozen=True)
class Constant:
    """One `NAME = literal` of the block."""

    name: str
    value: Value
    text: str
    """The literal as it is written."""
    line: int
    """Line of the literal in the block, from 0."""
    start: int
    """First column of the literal, in bytes of UTF-8."""
    end: int


def split_source(source: str) -> Block | None:
    """The file around its constants block, or None when it has none."""
    start = _START.search(source)
    end = _END.search(source, start.end()) if start else None
    if start is None or end is None:
        return None
    return Block(source[: start.end()], source[start.end() : end.start()], source[end.start() :])


def literal(node: ast.expr) -> Value | None:
    """The value of a literal, of a signed number, or of plain arithmetic such as `2**18`; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.UnaryOp):
        inner = literal(node.operand)
        if not _is_number(inner):
            return None
        return -inner if isinstance(node.op, ast.USub) else inner if isinstance(node.op, ast.UAdd) else None
    if isinstance(node, ast.BinOp):
        left, right = literal(node.left), literal(node.right)
        return _arithmetic(node.op, left, right) if _is_number(left) and _is_number(right) else None
    return None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arithmetic(op: ast.operator, left: float, right: float) -> Value | None:
    # Small exponents only: reading a file must not compute for minutes.
    if isinstance(op, ast.Pow) and isinstance(right, int) and 0 <= right <= 64 and abs(left) <= 1e6:
        return left**right
    if isinstance(op, ast.Mult):
        return left * right
    if isinstance(op, ast.Add):
        return left + right
    if isinstance(op, ast.Sub):
        return left - right
    if isinstance(op, ast.Div) and right:
        return left / right
    if isinstance(op, ast.FloorDiv) and right:
        return left // right
    return None


@lru_cache(maxsize=1024)
def _read_block(body: str) -> tuple[Constant, ...]:
    try:
        statements = ast.parse(body).body
    except (SyntaxError, ValueError):
        return ()
    lines = body.encode().split(b"\n")
    found: dict[str, Constant] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, node = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, node = statement.target, statement.value
        else:
            continue
        value = literal(node)
        if not isinstance(target, ast.Name) or value is None or node.end_lineno != node.lineno:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            continue
        row, start, end = node.lineno - 1, node.col_offset, node.end_col_offset or 0
        found[target.id] = Constant(target.id, value, lines[row][start:end].decode(), row, start, end)
    return tuple(found.values())


def read_constants(source: str) -> dict[str, Constant]:
    """Every literal constant of the block by name; the last assignment counts. Empty when there is no block."""
    block = split_source(source)
    return {} if block is None else {constant.name: constant for constant in _read_block(block.body)}


def render(value: Value, like: str = "") -> str:
    """A literal for `value`. Powers of two stay written as powers when `like` was."""
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and "**" in like
        and value > 0
        and not value & (value - 1)
    ):
        return f"2**{value.bit_length() - 1}"
    return f'"{value}"' if isinstance(value, str) and '"' not in value and "\\" not in value else repr(value)


def write_constants(source: str, values: Mapping[str, Value]) -> str:
    """The source with these constants' literals replaced; a value that is already there keeps its text.

    Raises `KeyError` for a name that the block does not have.
    """
    constants = read_constants(source)
    unknown = sorted(set(values) - set(constants))
    if unknown:
        raise KeyError(f"not in the constants block: {', '.join(unknown)}")
    block = split_source(source)
    if block is None:
        return source
    lines = block.body.encode().split(b"\n")
    for name, value in values.items():
        constant = constants[name]
        if constant.value == value and type(constant.value) is type(value):
            continue
        row = lines[constant.line]
        lines[constant.line] = row[: constant.start] + render(value, constant.text).encode() + row[constant.end :]
    return block.head + b"\n".join(lines).decode() + block.tail
