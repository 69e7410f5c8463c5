"""Apply a model's reply to the train file: all of it or nothing.

A reply has one of two formats. SEARCH/REPLACE blocks are each found in the file exactly, else without trailing
whitespace, else moved by one uniform indentation; each of these rungs counts only if it fits in exactly one place. Or
the reply holds the whole file in one fence. Everything doubtful is refused, with a message that helps the model to do
better.
"""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from autoresearch.agent.llm.replies import (
    EditError,
    SearchReplace,
    check_complete,
    check_file,
    has_blocks,
    read_blocks,
    read_whole,
    without_thoughts,
)
from autoresearch.core.trainfile.constants import split_source
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.parsing import parse
from autoresearch.core.trainfile.source_check import FUNCTIONS, SIZE_LIMIT_BYTES
from autoresearch.core.trainfile.trees import statements

Format = Literal["blocks", "whole"]
Rung = Literal["exact", "trailing whitespace", "indentation", "whole file"]
_NEAREST = 3
"""Least number of lines that are shown where a SEARCH was not found."""


@dataclass(frozen=True)
class Edited:
    """The edited train file, and how the edit was found to fit."""

    source: str
    format: Format
    rungs: tuple[Rung, ...]
    """The rung on which each block was found."""


def apply_reply(reply: str, source: str, *, tried: Collection[str] = (), whole: bool = True) -> Edited:
    """Make the train file that a reply asks for. Raises `EditError` when it cannot be made or used.

    `tried` holds fingerprints of programs that are refused; `whole` allows a whole file where there are no blocks.
    """
    text = without_thoughts(reply)
    if has_blocks(text):
        new, rungs = apply_blocks(read_blocks(text), source)
        edited = Edited(new, "blocks", rungs)
    elif whole:
        edited = Edited(read_whole(text, source), "whole", ("whole file",))
    else:
        raise EditError("no edit", "The reply has no SEARCH/REPLACE block. Give at least one.")
    check_edit(edited.source, source, tried)
    return edited


def check_edit(new: str, old: str, tried: Collection[str] = ()) -> None:
    """Raise `EditError` when an edited file is no train file, changes nothing, or was tried."""
    if len(new.encode("utf-8", errors="surrogatepass")) > SIZE_LIMIT_BYTES:
        raise EditError("too large", f"The edited file has more than {SIZE_LIMIT_BYTES // 1024} KB.")
    if statements(new) is None:
        raise EditError("syntax", f"The edited file is not valid Python{_flaw(new)}.")
    missing = sorted(_offered(old) - _offered(new))
    if missing:
        raise EditError("contract", f"The edited file lacks {', '.join(missing)} at its top level; keep them.")
    if split_source(old) is not None and split_source(new) is None:
        raise EditError("contract", "The constants block and the two comment lines around it must stay.")
    # By fingerprint and not by text: a model that only reformats would spend a trial on the same program.
    key = fingerprint(new)
    if key == fingerprint(old):
        raise EditError("no-op", "The edit changes nothing that runs: comments and layout do not count.")
    if key in tried:
        raise EditError("tried", "This very program was tried before in this run. Propose another change.")


def _flaw(source: str) -> str:
    """Describe the line at which a source is invalid Python, and the reason."""
    try:
        parse(source)
    except SyntaxError as error:
        return f" (line {error.lineno}): {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f": {error}"
    return ""


def _offered(source: str) -> set[str]:
    """Return the contract's names that a module defines."""
    names = {name for statement in statements(source) or () for name in _names(statement)}
    return names & {*FUNCTIONS, "VOCAB_SIZE"}


@lru_cache(maxsize=4096)
def _names(statement: str) -> frozenset[str]:
    """Return the names that a top-level statement defines."""
    names: set[str] = set()
    for node in parse(statement).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def apply_blocks(blocks: Sequence[SearchReplace], source: str) -> tuple[str, tuple[Rung, ...]]:
    """Apply blocks, each matched against the file as it was. Raises `EditError`."""
    lines = source.split("\n")
    found: list[tuple[int, int, Sequence[str]]] = []
    rungs: list[Rung] = []
    for number, block in enumerate(blocks, 1):
        check_file(block.file)
        if not any(line.strip() for line in block.search):
            raise EditError("broken block", f"SEARCH of block {number} is empty: quote the lines to be replaced.")
        check_complete(block.replace, lines)
        start, rung, replace = _locate(block, lines, number)
        found.append((start, start + len(block.search), replace))
        rungs.append(rung)
    # Blocks are matched against the file as the model saw it, not against each other's results. Two that overlap have
    # no order that would be right.
    found.sort(key=lambda one: one[:2])
    for (_, end, _), (start, _, _) in itertools.pairwise(found):
        if start < end:
            raise EditError("overlap", f"Two blocks replace line {start + 1}. Join them into one.")
    # From the end, so that earlier line numbers stay valid.
    for start, end, replace in reversed(found):
        lines[start:end] = replace
    return "\n".join(lines), tuple(rungs)


def _locate(block: SearchReplace, lines: Sequence[str], number: int) -> tuple[int, Rung, Sequence[str]]:
    """Return the line where the block fits, the rung on which it does, and the lines to put there."""
    search = block.search
    rungs: tuple[tuple[Rung, Callable[[Sequence[str]], str | None]], ...] = (
        ("exact", lambda there: "" if tuple(there) == search else None),
        ("trailing whitespace", lambda there: "" if _stripped(there) == _stripped(search) else None),
        ("indentation", lambda there: _shift(search, there)),
    )
    for rung, fits in rungs:
        shifts = {i: fits(lines[i : i + len(search)]) for i in range(len(lines) - len(search) + 1)}
        places = [i for i, shift in shifts.items() if shift is not None]
        # Refused, never guessed: the first of two places would be right half of the time, and a wrong edit costs a
        # whole trial.
        if len(places) > 1:
            shown = ", ".join(str(i + 1) for i in places[:6])
            raise EditError(
                "ambiguous",
                f"SEARCH of block {number} fits {len(places)} places (lines {shown}). Quote more lines around it.",
            )
        if places:
            shift = shifts[places[0]] or ""
            replace = block.replace if rung == "exact" else _shifted(block, shift, number)
            return places[0], rung, replace
    raise EditError("not found", _nearest(search, lines, number))


def _stripped(lines: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in lines]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _shift(search: Sequence[str], there: Sequence[str]) -> str | None:
    """Return the difference in indentation: "+" and the text that every searched line lacks, or "-" and the excess.

    None if it is not the same on every line, or if more than indentation differs.
    """
    shifts = set()
    for mine, other in zip(_stripped(search), _stripped(there), strict=True):
        if mine.lstrip() != other.lstrip():
            return None
        if not mine:
            continue
        a, b = _indent(mine), _indent(other)
        if not (a.endswith(b) or b.endswith(a)):
            return None
        shifts.add("+" + b[: len(b) - len(a)] if len(b) >= len(a) else "-" + a[: len(a) - len(b)])
    return shifts.pop() if len(shifts) == 1 else None


def _shifted(block: SearchReplace, shift: str, number: int) -> list[str]:
    """Move the replacement as the search was moved. Raises `EditError` where their indentations differ."""
    lines = _stripped(block.replace)
    filled = [line for line in lines if line]
    if not shift or not filled:
        return lines
    least = min(len(_indent(line)) for line in filled)
    if least != min(len(_indent(line)) for line in block.search if line.strip()):
        raise EditError("not found", f"SEARCH of block {number} is indented otherwise than the file. Copy it exactly.")
    sign, by = shift[0], shift[1:]
    if sign == "+":
        return [by + line if line else line for line in lines]
    if not all(line.startswith(by) for line in filled):
        raise EditError("not found", f"Block {number} mixes tabs and spaces. Copy the file's indentation exactly.")
    return [line[len(by) :] if line else line for line in lines]


def _nearest(search: Sequence[str], lines: Sequence[str], number: int) -> str:
    """Write a message with the lines of the file that look most like those that were not found."""
    wanted, size = "\n".join(search), len(search)
    first = next(line.strip() for line in search if line.strip())

    def likeness(i: int) -> float:
        # A cheap look at every line first; the quadratic comparison below then has a dozen places instead of a
        # thousand.
        line = difflib.SequenceMatcher(None, first, lines[i].strip(), autojunk=False)
        return line.quick_ratio()

    likely = sorted(range(len(lines)), key=likeness, reverse=True)[:12]
    best = sorted(
        likely,
        key=lambda i: difflib.SequenceMatcher(None, wanted, "\n".join(lines[i : i + size])).ratio(),
        reverse=True,
    )[:1]
    shown = "\n".join(
        f"{i + 1}: {lines[i]}" for at in best for i in range(at, min(len(lines), at + max(size, _NEAREST)))
    )
    return f"SEARCH of block {number} is not in the file. Copy lines exactly, indentation included. Nearest:\n{shown}"
