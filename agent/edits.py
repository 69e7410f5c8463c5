"""From a model's reply to an edited train file: all of it or nothing.

Two formats. SEARCH/REPLACE blocks, each found in the file by a ladder: exactly, else without trailing whitespace, else
moved by one uniform indentation. A rung counts only if it fits in exactly one place. Or the whole file in one fence.
Everything doubtful is refused, with words that help whoever wrote the reply to do better.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from autoresearch.agent.constants import split_source
from autoresearch.agent.tried import tree_key

Format = Literal["blocks", "whole"]
Rung = Literal["exact", "trailing whitespace", "indentation", "whole file"]
MAX_BYTES = 256 * 1024
"""The contract's limit on a train file."""
TRAIN_FILE = "train.py"
_NEAREST = 3
_SEARCH = re.compile(r"^([ \t]*)<{5,9} ?SEARCH\b[ \t]*(\S*)[ \t]*$")
_DIVIDER = re.compile(r"^[ \t]*={5,9}[ \t]*$")
_REPLACE = re.compile(r"^[ \t]*>{5,9}(?: ?REPLACE)?[ \t]*$")
_MARKER = re.compile(r"^[ \t]*(?:<{5,9}|>{5,9})(?: |$)")
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^`]*$")
_NAMED = re.compile(
    r"^[ \t]*(?:[#>*\-]+[ \t]*)?(?:file(?:name)?:[ \t]*)?[`*]*([\w./\\-]*\w\.[A-Za-z]{1,5})[`*:]*[ \t]*$", re.I
)
_ELISION = re.compile(
    r"^[ \t]*(?:#|\.\.\.|…|\[|\()[ \t.…\[(]*(?:the )?(?:rest|remaining|remainder|existing|same|other|unchanged)\b"
    r".*\b(?:file|code|unchanged|same|before|here|above|is|remains?|functions?)\b|^[ \t]*#[ \t]*(?:\.\.\.|…)",
    re.I,
)
"""A line that stands for lines that the writer left out."""


class EditError(Exception):
    """The reply cannot be applied. `str(error)` is for whoever wrote it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """One word or two: "no edit", "broken block", "not found", "ambiguous", "other file", "no-op", "tried" ..."""


@dataclass(frozen=True)
class Block:
    """One SEARCH/REPLACE block, as lines without their ends."""

    search: tuple[str, ...]
    replace: tuple[str, ...]
    file: str
    """The file that the reply names for it, or empty."""


@dataclass(frozen=True)
class Edited:
    """The edited train file, and how the edit was found to fit."""

    source: str
    format: Format
    rungs: tuple[Rung, ...]


def apply_reply(reply: str, source: str, *, tried: Collection[str] = (), whole: bool = True) -> Edited:
    """The train file that the reply asks for.

    `tried` holds `tree_key`s that are refused; `whole` allows a whole file where there are no blocks.
    Raises `EditError`.
    """
    text = _without_thoughts(reply.replace("\r\n", "\n").replace("\r", "\n"))
    if any(_MARKER.match(line) for line in text.split("\n")):
        new, rungs = apply_blocks(read_blocks(text), source)
        edited = Edited(new, "blocks", rungs)
    elif whole:
        edited = Edited(read_whole(text, source), "whole", ("whole file",))
    else:
        raise EditError("no edit", "The reply has no SEARCH/REPLACE block. Give at least one.")
    check_source(edited.source, source, tried)
    return edited


def check_source(new: str, old: str, tried: Collection[str] = ()) -> None:
    """Refuse what is no train file, changes nothing, or was tried. Raises `EditError`."""
    if len(new.encode("utf-8", errors="surrogatepass")) > MAX_BYTES:
        raise EditError("too large", f"The edited file has more than {MAX_BYTES // 1024} KB.")
    try:
        tree = ast.parse(new)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise EditError(
            "syntax", f"The edited file is no valid Python{where}: {getattr(error, 'msg', error)}."
        ) from None
    missing = sorted(_offered(ast.parse(old)) - _offered(tree))
    if missing:
        raise EditError("contract", f"The edited file lacks {', '.join(missing)} at its top level; keep them.")
    if split_source(old) is not None and split_source(new) is None:
        raise EditError("contract", "The constants block and the two comment lines around it must stay.")
    key = tree_key(new)
    if key == tree_key(old):
        raise EditError("no-op", "The edit changes nothing that runs: comments and layout do not count.")
    if key in tried:
        raise EditError("tried", "This very program was tried before in this run. Propose another change.")


def _offered(tree: ast.Module) -> set[str]:
    """Which of the contract's names a module offers."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names & {"build", "train", "logits", "VOCAB_SIZE"}


def _without_thoughts(text: str) -> str:
    """Some models send their thoughts along; those may hold blocks that were thought better of."""
    text = re.sub(r"<(think|thinking|reasoning)>.*?</\1>", "", text, flags=re.S | re.I)
    if re.search(r"<(think|thinking|reasoning)>", text, flags=re.I):
        raise EditError("broken block", "The reply ends inside its thoughts. Answer shorter, with the edit.")
    return text


def read_blocks(text: str) -> list[Block]:
    """Every block of a reply, in order. Raises `EditError` when any is broken."""
    lines = text.split("\n")
    blocks: list[Block] = []
    at = 0
    while at < len(lines):
        start = _SEARCH.match(lines[at])
        if start is None:
            if _MARKER.match(lines[at]):
                raise EditError("broken block", f"A marker stands where none belongs: {lines[at].strip()!r}.")
            at += 1
            continue
        end = next((i for i in range(at + 1, len(lines)) if _MARKER.match(lines[i])), len(lines))
        number = len(blocks) + 1
        if end == len(lines) or not _REPLACE.match(lines[end]):
            raise EditError("broken block", f"Block {number} has no line `>>>>>>> REPLACE` at its end.")
        middle = [i for i in range(at + 1, end) if _DIVIDER.match(lines[i])]
        if len(middle) != 1:
            what = "no line `=======`" if not middle else "more than one line `=======`"
            raise EditError("broken block", f"Block {number} has {what} between its two parts.")
        search, replace = lines[at + 1 : middle[0]], lines[middle[0] + 1 : end]
        search, replace = _without_margin(start.group(1), search, replace)
        search, replace = _without_fences(search, replace)
        blocks.append(Block(tuple(search), tuple(replace), start.group(2) or _file_before(lines, at)))
        at = end + 1
    return blocks


def _without_margin(margin: str, *parts: list[str]) -> tuple[list[str], ...]:
    """A block whose markers are indented, as in a list, has its lines indented as well."""
    if margin and all(line.startswith(margin) or not line.strip() for part in parts for line in part):
        return tuple([line[len(margin) :] if line.startswith(margin) else "" for line in part] for part in parts)
    return parts


def _without_fences(*parts: list[str]) -> tuple[list[str], ...]:
    """Fences inside a block, around each of its parts."""
    fenced = [len(part) >= 2 and bool(_FENCE.match(part[0])) and part[-1].strip() in ("```", "~~~") for part in parts]
    if all(inside or not part for inside, part in zip(fenced, parts, strict=True)):
        return tuple(part[1:-1] for part in parts)
    return parts


def _file_before(lines: Sequence[str], at: int) -> str:
    """The file name on the line above a block or fence, if there is one."""
    for i in range(at - 1, max(-1, at - 4), -1):
        if _FENCE.match(lines[i]) or not lines[i].strip():
            continue
        named = _NAMED.match(lines[i])
        return named.group(1) if named else ""
    return ""


def _check_file(file: str) -> None:
    if file and re.split(r"[/\\]", file)[-1] != TRAIN_FILE:
        raise EditError("other file", f"Only {TRAIN_FILE} may be edited, not {file}.")


def apply_blocks(blocks: Sequence[Block], source: str) -> tuple[str, tuple[Rung, ...]]:
    """All blocks, each matched against the file as it was. Raises `EditError`."""
    lines = source.split("\n")
    found: list[tuple[int, int, Sequence[str]]] = []
    rungs: list[Rung] = []
    for number, block in enumerate(blocks, 1):
        _check_file(block.file)
        if not any(line.strip() for line in block.search):
            raise EditError("broken block", f"SEARCH of block {number} is empty: quote the lines to be replaced.")
        _check_complete(block.replace, lines)
        start, rung, replace = _locate(block, lines, number)
        found.append((start, start + len(block.search), replace))
        rungs.append(rung)
    found.sort(key=lambda one: one[:2])
    for (_, end, _), (start, _, _) in itertools.pairwise(found):
        if start < end:
            raise EditError("overlap", f"Two blocks replace line {start + 1}. Join them into one.")
    for start, end, replace in reversed(found):
        lines[start:end] = replace
    return "\n".join(lines), tuple(rungs)


def _check_complete(new: Sequence[str], old: Sequence[str]) -> None:
    """Nothing may stand for lines that were left out."""
    known = {line.strip() for line in old}
    for line in new:
        if _ELISION.match(line) and line.strip() not in known:
            raise EditError("elision", f"Something is left out: {line.strip()!r}. Write all of it.")


def _locate(block: Block, lines: Sequence[str], number: int) -> tuple[int, Rung, Sequence[str]]:
    """Where the block fits, on which rung, and what comes there."""
    search = block.search
    rungs: tuple[tuple[Rung, Callable[[Sequence[str]], str | None]], ...] = (
        ("exact", lambda there: "" if tuple(there) == search else None),
        ("trailing whitespace", lambda there: "" if _stripped(there) == _stripped(search) else None),
        ("indentation", lambda there: _shift(search, there)),
    )
    for rung, fits in rungs:
        shifts = {i: fits(lines[i : i + len(search)]) for i in range(len(lines) - len(search) + 1)}
        places = [i for i, shift in shifts.items() if shift is not None]
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
    """How far off the search's indentation is: "+" and what it lacks on every line, or "-" and what it has too much.

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


def _shifted(block: Block, shift: str, number: int) -> list[str]:
    """The replacement moved as the search was. Refused where the two do not start from the same indentation."""
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
    """Which lines of the file look most like those that were not found."""
    wanted, size = "\n".join(search), len(search)
    first = next(line.strip() for line in search if line.strip())

    def likeness(i: int) -> float:
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


def read_whole(text: str, old: str) -> str:
    """The file in the reply's one fence that holds a train file. Raises `EditError`."""
    fences = _fences(text)
    if any(not closed for _, _, closed in fences):
        raise EditError("broken block", "The last fence is not closed: the reply seems to have been cut off.")
    if not fences:
        raise EditError("no edit", "The reply has no edit: neither a SEARCH/REPLACE block nor a fenced file.")
    whole = [(file, body) for file, body, _ in fences if _is_train_file(body)]
    if len(whole) != 1:
        if len(fences) == 1:
            _check_file(fences[0][0])
        few = (
            "more than one whole file" if whole else "no whole file with build, train, logits and VOCAB_SIZE in a fence"
        )
        raise EditError("no edit", f"The reply has {few}. Give SEARCH/REPLACE blocks, or the whole file once.")
    file, body = whole[0]
    _check_file(file)
    _check_complete(body.split("\n"), old.split("\n"))
    return body.rstrip("\n") + "\n"


def _fences(text: str) -> list[tuple[str, str, bool]]:
    """File name or empty, body, whether it is closed: of every fence."""
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        start = _FENCE.match(lines[at])
        if start is None:
            at += 1
            continue
        mark = start.group(1)
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == mark), len(lines))
        found.append((_file_before(lines, at), "\n".join(lines[at + 1 : end]), end < len(lines)))
        at = end + 1
    return found


def _is_train_file(body: str) -> bool:
    names = ("def build(", "def train(", "def logits(", "VOCAB_SIZE")
    return all(re.search(rf"^{re.escape(name)}", body, re.M) for name in names)
