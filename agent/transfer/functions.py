"""Carrying an edit of some functions from one train file to another that has the same functions.

The train files of two frameworks share what is plain Python (schedules, window patterns, decays); those of one
framework on two devices share nearly everything.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.syntax.transforms import with_new_constant
from autoresearch.core.trainfile.constants import constant_lines, split_source
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.trees import first_line, is_bare_string, parsed


@dataclass(frozen=True)
class Function:
    """A top-level function, or a method of a top-level class."""

    node: ast.FunctionDef
    lines: tuple[str, ...]
    """Lines as they stand in the file, decorators included."""
    first: int
    """Number of the first of them, from 0."""
    outer: int
    """Number of the first line of the top-level statement that it is, or is part of."""
    key: str
    """Fingerprint: equal for two functions that are the same program."""


def with_functions(before: str, after: str, source: str) -> str | None:
    """Put the functions and constants that are new or changed from `before` to `after` into `source`.

    Values of constants that both have are left alone. None where the edit changes anything else, where `source` has
    other functions in their place, or where it lacks a name that the new ones use.
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
    # From the end of the file, so that the line numbers of edits further up stay valid.
    for start, count, text in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        lines[start : start + count] = text
    carried = _with_new_constants("\n".join(lines), before, after)
    # Names that the old functions used already are there: only new ones can be missing.
    needed = _names_used([*changed.values(), *added.values()]) - _names_used(old[name] for name in changed)
    return carried if carried is not None and needed <= _names_bound(carried) else None


@lru_cache(maxsize=64)
def functions_of(source: str) -> dict[str, Function] | None:
    """Find the functions by name, methods as `Class.method`; None for invalid Python, or two functions of one name."""
    tree = parsed(source)
    if tree is None:
        return None
    lines, found = source.split("\n"), dict[str, Function]()
    for name, node, outer in _defined(tree):
        if name in found:
            return None
        first, end = first_line(node), node.end_lineno or node.lineno
        key = fingerprint(ast.unparse(node))
        found[name] = Function(node, tuple(lines[first:end]), first, first_line(outer), key)
    return found


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, ast.stmt]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one, node) for one in node.body if isinstance(one, ast.FunctionDef))


def _rest(source: str) -> list[str]:
    """Return the rest of a file, apart from constants and functions, as dumped trees."""
    split = split_source(source)
    tree = parsed(source if split is None else split.head + split.tail)
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
    known = constants_of(before)
    added = [name for name in constants_of(after) if name not in known]
    if not added:
        return source
    lines, carried = constant_lines(after), source
    for name in added:
        longer = with_new_constant(carried, name, lines[name])
        if longer is None:
            return None
        carried = longer
    return carried


def _names_used(functions: Iterable[Function]) -> set[str]:
    """Return the names that these functions read and do not bind themselves."""
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
    """Return the names that a file binds at its top level, and those of Python itself."""
    tree, found = parsed(source), set(dir(builtins))
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            found |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return found
