"""Changes to a train file's functions, loops and constants. Each gives None when the source is not as it expects.

The syntax tree says where things stand; only the text there is replaced, so everything else stays as it was written.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Mapping, Sequence

from autoresearch.agent.syntax.constants import constants_of
from autoresearch.core.trainfile.constants import ConstantValue, split_source, write_constants
from autoresearch.core.trainfile.parsing import parse_expression
from autoresearch.core.trainfile.trees import parsed

Transform = Callable[[str], str | None]
"""A function from a source to the edited source, or to None where it does not fit."""
Body = tuple[str, tuple[str, ...], str]
"""A function's name, its parameters' names, and its new body, docstring included."""


def with_constants(source: str, values: Mapping[str, ConstantValue]) -> str | None:
    """Set these constants; None where the file lacks one or has another kind of value there."""
    constants = constants_of(source)
    for name, value in values.items():
        if name not in constants or _kind(constants[name]) is not _kind(value):
            return None
    return write_constants(source, values)


def _kind(value: ConstantValue) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def with_new_constant(source: str, name: str, line: str) -> str | None:
    """Add a line at the end of the constants block; None when there is no block, or it has that constant."""
    split = split_source(source)
    if split is None or name in constants_of(source):
        return None
    return f"{split.head}{split.body}{line}\n{split.tail}"


def imported_names(source: str) -> frozenset[str]:
    """Collect the names that the module's imports bind at its top level."""
    names: set[str] = set()
    for statement in _statements(source, ""):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
    return frozenset(names)


def with_function_body(source: str, name: str, parameters: tuple[str, ...], body: str, needs: str = "") -> str | None:
    """Replace the body of a top-level function, docstring included; its signature and all else stay.

    None when there is no such function or its parameters have other names. `needs` is a module to import if missing.
    """
    edited = _with_body(source, "", (name, parameters, body))
    if edited is None or not needs or needs in imported_names(source):
        return edited
    first = next(
        (
            one
            for one in _statements(edited, "")
            if isinstance(one, ast.Import | ast.ImportFrom) and not _is_future(one)
        ),
        None,
    )
    return None if first is None else _spliced(edited, first.lineno - 1, first.lineno - 1, [f"import {needs}"])


def with_method_bodies(source: str, owner: str, bodies: Sequence[Body]) -> str | None:
    """Replace the bodies of methods of a top-level class; all of them or None."""
    edited: str | None = source
    for body in bodies:
        edited = None if edited is None else _with_body(edited, owner, body)
    return edited


def with_loop_over(source: str, before: str, after: str) -> str | None:
    """Make loops over the expression `before` run over `after`; None where there is no such loop on one line."""
    tree, wanted = parsed(source), ast.dump(parse_expression(before).body)
    found = [node.iter for node in ast.walk(tree) if isinstance(node, ast.For)] if tree is not None else []
    lines = source.encode().split(b"\n")
    same = [node for node in found if ast.dump(node) == wanted]
    if not same or any(node.lineno != node.end_lineno for node in same):
        return None
    for node in same:
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: node.col_offset] + after.encode() + line[node.end_col_offset :]
    return b"\n".join(lines).decode()


def _statements(source: str, owner: str) -> Sequence[ast.stmt]:
    """Return the statements of the module, or of its one class of that name."""
    tree = parsed(source)
    if tree is None or not owner:
        return tree.body if tree is not None else ()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    return classes[0].body if len(classes) == 1 else ()


def parameters_of(source: str, owner: str, name: str) -> tuple[str, ...]:
    """Name the parameters of a method of the class `owner`, or of a function where `owner` is empty."""
    found = _function(source, owner, name)
    return () if found is None else tuple(argument.arg for argument in found.args.args)


def _function(source: str, owner: str, name: str) -> ast.FunctionDef | None:
    found = [one for one in _statements(source, owner) if isinstance(one, ast.FunctionDef) and one.name == name]
    return found[0] if len(found) == 1 else None


def _with_body(source: str, owner: str, new: Body) -> str | None:
    name, parameters, body = new
    found = _function(source, owner, name)
    if found is None or parameters_of(source, owner, name) != parameters:
        return None
    old = found.body
    first, last = old[0].lineno, old[-1].end_lineno or old[-1].lineno
    if source.split("\n")[first - 1][: old[0].col_offset].strip():
        return None  # signature and body share a line
    indent = " " * old[0].col_offset
    text = textwrap.indent(textwrap.dedent(body).strip(), indent)
    return _spliced(source, first - 1, last, text.split("\n"))


def _spliced(source: str, start: int, end: int, new: Sequence[str]) -> str:
    """Return the source with its lines [start, end) replaced."""
    lines = source.split("\n")
    return "\n".join([*lines[:start], *new, *lines[end:]])


def _is_future(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
