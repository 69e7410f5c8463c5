"""The constants block of a train file: read it, and write values into it without changing anything else."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from autoresearch.core.config import Constant, Preset
from autoresearch.core.errors import SourceError

BLOCK_START = "# ---- constants"
BLOCK_END = "# ---- end of constants"


def read_constants(source: str) -> dict[str, Constant]:
    """Return every `NAME = literal` of the block, in order. Values that are no bool, int, float or str are left out.

    Raises `SourceError` when there is no block or the file does not parse.
    """
    found: dict[str, Constant] = {}
    for name, value in _assignments(source).items():
        try:
            literal = ast.literal_eval(value)
        except (ValueError, TypeError):
            continue
        if isinstance(literal, (bool, int, float, str)):
            found[name] = literal
    return found


def write_constants(source: str, values: Mapping[str, Constant]) -> str:
    """Return the source with these values in its block. Comments, spacing and equal values stay as they are written.

    Raises `SourceError` naming the first constant that the block does not have.
    """
    assignments = _assignments(source)
    present = read_constants(source)
    lines = source.encode("utf-8").splitlines(keepends=True)
    edits = []
    for name, value in values.items():
        if name not in assignments:
            raise SourceError(
                f"the train file has no constant {name!r} in its constants block.",
                fix=f"add a line `{name} = {value!r}` before '{BLOCK_END}', or choose another preset",
            )
        if name not in present or present[name] != value or type(present[name]) is not type(value):
            edits.append((assignments[name], repr(value).encode("utf-8")))
    # From the end, so that the positions of what is still to be written do not move.
    for node, text in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset), reverse=True):
        _replace(lines, node, text)
    return b"".join(lines).decode("utf-8")


def write_preset(source: str, preset: Preset) -> str:
    """Return the source with the preset's constants; unchanged when its PRESET names that preset already.

    A constant that a person edited by hand after choosing a preset stays as it is.
    """
    if read_constants(source).get("PRESET") == preset.name:
        return source
    return write_constants(source, {**preset.constants, "PRESET": preset.name})


def _assignments(source: str) -> dict[str, ast.expr]:
    """Return name -> value node of the block's module-level assignments. Positions count UTF-8 bytes, as `ast` does."""
    first, last = _block(source)
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise SourceError(f"the train file cannot be parsed: {error}.") from error
    found: dict[str, ast.expr] = {}
    for node in body:
        if not first < node.lineno < last:
            continue
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


def _block(source: str) -> tuple[int, int]:
    """Return the line numbers, counted from 1, of the block's two comment lines. Raises `SourceError` without one."""
    lines = source.encode("utf-8").splitlines()
    starts = [n for n, line in enumerate(lines, 1) if line.startswith(BLOCK_START.encode())]
    ends = [n for n, line in enumerate(lines, 1) if line.startswith(BLOCK_END.encode())]
    if not starts or not ends or ends[0] < starts[0]:
        raise SourceError(
            "the train file has no constants block.",
            fix=f"put its constants between a line '{BLOCK_START}' and a line '{BLOCK_END}'",
        )
    return starts[0], ends[0]


def _replace(lines: list[bytes], node: ast.expr, text: bytes) -> None:
    """Replace the text of a node, which may span several lines."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    tail = lines[last][node.end_col_offset :]
    lines[first : last + 1] = [lines[first][: node.col_offset] + text + tail] + [b""] * (last - first)
