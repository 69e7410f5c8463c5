"""The constants block of a train file: read it, and write values into it without touching anything else.

The block is the lines between `# ---- constants` and `# ---- end of constants`, one `NAME = literal` a line. Plain
arithmetic on literals, such as `2**18`, `-1e-3` or `4 * 128`, counts as a literal.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeGuard

from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.parsing import parse

ConstantValue = bool | int | float | str
BLOCK_START = "# ---- constants"
BLOCK_END = "# ---- end of constants"
_START = re.compile(rf"^{BLOCK_START}\b.*\r?\n", re.MULTILINE)
_END = re.compile(rf"^{BLOCK_END}\b", re.MULTILINE)
_LARGEST_EXPONENT = 64
_LARGEST_BASE = 1e6
_LARGEST_BITS = 2048
"""Limits on computed numbers: reading a file must never compute for minutes."""


@dataclass(frozen=True)
class SplitSource:
    """A train file in three parts; joined they are the file."""

    head: str
    """Everything up to the block's opening line, that line included."""
    body: str
    """The constants."""
    tail: str
    """Everything from the block's closing line on."""


class PresetConstants(Protocol):
    """The part of a preset that is written into a train file (see `core.config.Preset`)."""

    @property
    def name(self) -> str:
        """The preset's name, which becomes the constant PRESET."""
        ...

    @property
    def constants(self) -> Mapping[str, ConstantValue]:
        """Values by constant."""
        ...


@dataclass(frozen=True)
class _Assignment:
    """One `NAME = expression` of the block, and where its expression stands."""

    value: ConstantValue | None
    """None when the expression is not a literal."""
    text: str
    """The expression's first line as it is written."""
    statement: tuple[int, int]
    """First and last line of the assignment in the block, from 0."""
    lines: tuple[int, int]
    """First and last line of the expression."""
    columns: tuple[int, int]
    """First column on the first line and end column on the last, in bytes of UTF-8."""


def split_source(source: str) -> SplitSource | None:
    """Split a train file around its constants block; None when it has none."""
    start = _START.search(source)
    end = _END.search(source, start.end()) if start else None
    if start is None or end is None:
        return None
    return SplitSource(source[: start.end()], source[start.end() : end.start()], source[end.start() :])


def read_constants(source: str) -> dict[str, ConstantValue]:
    """Read every literal constant of the block, in order; the last assignment of a name counts.

    Raises `SourceError` when there is no block or it does not parse.
    """
    assignments = _assignments(_split(source).body)
    return {name: found.value for name, found in assignments.items() if found.value is not None}


def constant_lines(source: str) -> dict[str, str]:
    """Return the text of every literal constant's line, or lines, with its comment. Raises as `read_constants` does."""
    body = _split(source).body
    lines = body.encode().splitlines()
    return {
        name: b"\n".join(lines[found.statement[0] : found.statement[1] + 1]).decode()
        for name, found in _assignments(body).items()
        if found.value is not None
    }


def write_constants(source: str, values: Mapping[str, ConstantValue]) -> str:
    """Write these values into the block. Comments, spacing and equal values stay as they are written.

    A power of two replaces a power of two as one: `2**18` becomes `2**17`, not 131072. Raises `SourceError` naming the
    first constant that the block does not have.
    """
    if not values:
        return source
    split = _split(source)
    assignments = _assignments(split.body)
    edits = []
    for name, value in values.items():
        if name not in assignments:
            raise SourceError(
                f"the train file has no constant {name!r} in its constants block.",
                fix=f"add a line `{name} = {value!r}` before '{BLOCK_END}', or choose another preset",
            )
        found = assignments[name]
        if found.value != value or type(found.value) is not type(value):
            edits.append((found, _rendered(value, found.text)))
    lines = split.body.encode().splitlines(keepends=True)
    # From the end, so that the positions of what is still to be written do not move.
    for found, text in sorted(edits, key=lambda edit: (edit[0].lines, edit[0].columns), reverse=True):
        (first, last), (start, end) = found.lines, found.columns
        lines[first : last + 1] = [lines[first][:start] + text.encode() + lines[last][end:]] + [b""] * (last - first)
    return split.head + b"".join(lines).decode() + split.tail


def write_preset(source: str, preset: PresetConstants) -> str:
    """Write the preset's constants into the block, unless its PRESET names that preset already.

    A file of that preset stays unchanged because a person may have edited its constants by hand since.
    """
    if read_constants(source).get("PRESET") == preset.name:
        return source
    return write_constants(source, {**preset.constants, "PRESET": preset.name})


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is an int or a float; a bool is neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def literal(node: ast.expr) -> ConstantValue | None:
    """Compute a literal, a signed number, or arithmetic on numbers such as `2**18`; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.UnaryOp):
        inner = literal(node.operand)
        if not is_number(inner):
            return None
        return -inner if isinstance(node.op, ast.USub) else inner if isinstance(node.op, ast.UAdd) else None
    if isinstance(node, ast.BinOp):
        left, right = literal(node.left), literal(node.right)
        return _computed(node.op, left, right) if is_number(left) and is_number(right) else None
    return None


def _computed(op: ast.operator, left: float, right: float) -> int | float | None:
    """Return the result of one operation; None for an operation that is not folded, or too large a result."""
    value: int | float
    try:
        if isinstance(op, ast.Pow):
            if not isinstance(right, int) or abs(right) > _LARGEST_EXPONENT or abs(left) > _LARGEST_BASE:
                return None
            value = left**right
        elif isinstance(op, ast.Mult):
            value = left * right
        elif isinstance(op, ast.Add):
            value = left + right
        elif isinstance(op, ast.Sub):
            value = left - right
        elif isinstance(op, ast.Div):
            value = left / right
        elif isinstance(op, ast.FloorDiv):
            value = left // right
        else:
            return None
    except (ZeroDivisionError, OverflowError):
        return None
    return None if isinstance(value, int) and value.bit_length() > _LARGEST_BITS else value


def _split(source: str) -> SplitSource:
    split = split_source(source)
    if split is None:
        raise SourceError(
            "the train file has no constants block.",
            fix=f"put its constants between a line '{BLOCK_START}' and a line '{BLOCK_END}'",
        )
    return split


@lru_cache(maxsize=1024)
def _assignments(body: str) -> Mapping[str, _Assignment]:
    """Return the block's assignments by name. Cached, because researchers read the same few hundred blocks often."""
    found: dict[str, _Assignment] = {}
    lines = body.encode("utf-8", errors="surrogatepass").splitlines()
    try:
        for node in parse(body).body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, expression = node.targets[0], node.value
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                target, expression = node.target, node.value
            else:
                continue
            if isinstance(target, ast.Name):
                statement = node.lineno - 1, (node.end_lineno or node.lineno) - 1
                found[target.id] = _assignment(statement, expression, lines)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"the train file's constants block cannot be parsed: {error}.") from error
    return found


def _assignment(statement: tuple[int, int], node: ast.expr, lines: list[bytes]) -> _Assignment:
    value = literal(node)
    if isinstance(value, float) and not math.isfinite(value):
        value = None  # `1e999` parses as infinity, which has no literal of its own
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    start, end = node.col_offset, node.end_col_offset or 0
    text = lines[first][start : end if first == last else None]
    return _Assignment(value, text.decode("utf-8", errors="replace"), statement, (first, last), (start, end))


def _rendered(value: ConstantValue, like: str) -> str:
    """Return a literal for `value`, as a power of two where `like` was written as a power."""
    if is_number(value) and isinstance(value, int) and "**" in like and value > 0 and not value & (value - 1):
        return f"2**{value.bit_length() - 1}"
    plain = isinstance(value, str) and value.isprintable() and '"' not in value and "\\" not in value
    return f'"{value}"' if plain else repr(value)
