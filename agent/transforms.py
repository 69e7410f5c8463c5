"""Syntax-tree transforms that structural edits are made of. Each gives None when the source is not as it expects."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Mapping
from functools import lru_cache

import libcst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor

from autoresearch.agent.constants import Value, read_constants, write_constants

Transform = Callable[[str], str | None]
"""Source -> edited source, or None where it does not fit."""


def with_constants(source: str, values: Mapping[str, Value]) -> str | None:
    """The source with these constants, or None where it lacks one or has another kind of value there."""
    constants = read_constants(source)
    for name, value in values.items():
        if name not in constants or _kind(constants[name].value) is not _kind(value):
            return None
    return write_constants(source, values)


def _kind(value: Value) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def imported_names(source: str) -> frozenset[str]:
    """Names that the module's imports bind at its top level."""
    names: set[str] = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
    return frozenset(names)


@lru_cache(maxsize=256)  # the menu tries every edit on the same few sources, again and again
def with_function_body(source: str, name: str, parameters: tuple[str, ...], body: str, needs: str = "") -> str | None:
    """Replace the body of a top-level function, docstring included; its signature and all else stay.

    None when there is no such function or its parameters have other names. `needs` is a module to import if missing.
    """
    module = libcst.parse_module(source)
    found = [node for node in module.body if isinstance(node, libcst.FunctionDef) and node.name.value == name]
    if len(found) != 1 or tuple(param.name.value for param in found[0].params.params) != parameters:
        return None
    new = libcst.parse_module("def replacement():\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
    replacement = new.body[0]
    if not isinstance(replacement, libcst.FunctionDef):
        return None
    changed = module.with_changes(
        body=[node.with_changes(body=replacement.body) if node is found[0] else node for node in module.body]
    )
    if needs and needs not in imported_names(source):
        context = CodemodContext()
        AddImportsVisitor.add_needed_import(context, needs)
        changed = AddImportsVisitor(context).transform_module(changed)
    return changed.code
