"""The constants of a train file as researchers read them: a file without a constants block has none."""

from __future__ import annotations

import ast
import re
from functools import lru_cache

from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import ConstantValue, is_number, read_constants, split_source
from autoresearch.core.trainfile.trees import parsed

Number = int | float
_READ_BY_THE_CORE = frozenset({"VOCAB_SIZE", "PRESET"})
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*", re.IGNORECASE)


def constants_of(source: str) -> dict[str, ConstantValue]:
    """Read every literal constant of the block; none where there is no block or it does not parse.

    A history may hold broken files: they crashed, and still they are experiments to learn from.
    """
    try:
        return read_constants(source)
    except SourceError:
        return {}


def numbers_of(source: str) -> dict[str, Number]:
    """Read every numeric constant of the block."""
    return {name: value for name, value in constants_of(source).items() if is_number(value)}


def unread_constants(source: str) -> frozenset[str]:
    """Name the constants that nothing in the file reads, so that a change of them changes nothing.

    None for a file that reads no constant at all: it reads them in a way that is not seen here.
    """
    split, names = split_source(source), constants_of(source).keys()
    if split is None:
        return frozenset()
    read = _names_read(split.head) | _names_read(split.body) | _names_read(split.tail)
    return frozenset(names - read - _READ_BY_THE_CORE) if names & read else frozenset()


@lru_cache(maxsize=256)  # the sources of a run share most of their code
def _names_read(code: str) -> frozenset[str]:
    """Collect the names that code reads, and every word of its texts: `globals()` may be asked for them."""
    tree, found = parsed(code), set[str]()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            found |= set(_NAME.findall(node.value))
    return frozenset(found)
