"""An edit of some functions of one train file, made on another file that has the same functions.

The train files of two frameworks share what is plain Python (schedules, window patterns, decays); those of one
framework on two devices share nearly everything.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from autoresearch.agent.syntax.constants import read_constants, split_source
from autoresearch.agent.syntax.source_keys import tree_key
from autoresearch.agent.syntax.trees import is_bare_string, parsed
from autoresearch.agent.tuner.transforms import with_new_constant


@dataclass(frozen=True)
class Function:
    """A top-level function, or a method of a top-level class."""

    node: ast.FunctionDef
    lines: tuple[str, ...]
    """As they stand in the file, decorators included."""
    first: int
    """The first of them, from 0."""
    outer: int
    """The first line of the top-level statement that it is, or is part of."""
    key: str
    """Equal for two functions that are the same program."""


def with_functions(before: str, after: str, source: str) -> str | None:
    """`source` with the functions and new constants that `after` has and `before` has not.

    Values of constants that both have are not its business. None where the edit is more than that, or where `source`
    has other functions in their place, or lacks a name that the new ones use.
    """
    old, new, here = functions_of(before), functions_of(after), functions_of(source)
    if old is None or new is None or here is None or _rest(before) != _rest(after) or not old.keys() <= new.keys():
        return None
    added = {name: function for name, function in new.items() if name not in old}
    changed = {name: new[name] for name in old if new[name].key != old[name].key}
    if not changed or any("." in name or name in here for name in added):
        return None
    for name, function in changed.items():
        there = here.get(name)
        if there is None or there.key != old[name].key or there.node.col_offset != function.node.col_offset:
            return None
    lines, first = source.split("\n"), min(here[name].outer for name in changed)
    edits = [(here[name].first, len(here[name].lines), function.lines) for name, function in changed.items()]
    edits += [(first, 0, (*function.lines, "", "")) for function in added.values()]
    for start, count, text in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        lines[start : start + count] = text
    carried = _with_new_constants("\n".join(lines), before, after)
    needed = _names_used([*changed.values(), *added.values()]) - _names_used(old[name] for name in changed)
    return carried if carried is not None and needed <= _names_bound(carried) else None


@lru_cache(maxsize=64)
def functions_of(source: str) -> dict[str, Function] | None:
    """By name, methods as `Class.method`. None when the source is no Python, or has two of one name."""
    tree = parsed(source)
    if tree is None:
        return None
    lines, found = source.split("\n"), dict[str, Function]()
    for name, node, outer in _defined(tree):
        if name in found:
            return None
        first, end = _first_line(node), node.end_lineno or node.lineno
        key = tree_key(ast.unparse(node))
        found[name] = Function(node, tuple(lines[first:end]), first, _first_line(outer), key)
    return found


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, ast.stmt]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one, node) for one in node.body if isinstance(one, ast.FunctionDef))


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) - 1


def _rest(source: str) -> list[str]:
    """What of a file is neither constant nor function, as trees."""
    block = split_source(source)
    tree = parsed(source if block is None else block.head + block.tail)
    found = []
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.ClassDef):
            inside = [one for one in node.body if not isinstance(one, ast.FunctionDef) and not is_bare_string(one)]
            parts = (*node.bases, *node.keywords, *node.decorator_list, *inside)
            found.append(f"{node.name} {[ast.dump(one) for one in parts]}")
        elif not isinstance(node, ast.FunctionDef) and not is_bare_string(node):
            found.append(ast.dump(node))
    return found


def _with_new_constants(source: str, before: str, after: str) -> str | None:
    block, known = split_source(after), read_constants(before)
    lines = [] if block is None else block.body.split("\n")
    carried: str | None = source
    for name, constant in read_constants(after).items():
        if name not in known and carried is not None:
            carried = with_new_constant(carried, name, lines[constant.line])
    return carried


def _names_used(functions: Iterable[Function]) -> set[str]:
    """Names that these functions read and do not bind themselves."""
    used, bound = set[str](), set[str]()
    for function in functions:
        for node in ast.walk(function.node):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).split(".")[0])
    return used - bound


def _names_bound(source: str) -> set[str]:
    """At the top level of a file, or by Python itself."""
    tree, found = parsed(source), set(dir(builtins))
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            found |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return found
