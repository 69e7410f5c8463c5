"""Read a model's reply: the header in which it says what it tries, and its edit, which is not applied here.

An edit is one or more SEARCH/REPLACE blocks, or the whole train file in a fence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.core.proposal import CATEGORIES

TRAIN_FILE = "train.py"
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
    r".*\b(?:unchanged|omitted|untouched|(?:file|code|functions?|same|identical|original|before|above|here|remains?"
    r"|as is|as it (?:is|was))\W*$)|^[ \t]*#[ \t]*(?:\.\.\.|…)",
    re.I,
)
"""A line that stands for lines that the writer left out. Most of its words must end the line, because comments begin
like it, too: `# the rest of the budget is for the cooldown`."""
_THOUGHT = re.compile(r"<(/?)(think|thinking|reasoning)>", re.I)
_EDIT_START = re.compile(r"^[ \t]*<{5,9}|^[ \t]*```", re.M)
_FIELD = r"^[ \t>*#_-]*{name}[ \t*_]*:[ \t*_]*(.+)$"
_NUMBER = re.compile(r"[-+\u2212]?\d*\.?\d+(?:[eE][-+]?\d+)?")
_PROPOSAL = re.compile(r"^[ \t>*#_`-]*PROPOSAL[ \t]+\d+(?:[ \t]+of[ \t]+\d+)?[ \t*_`:.]*$", re.I)
LINE_LIMIT = 500
"""Characters of a line from which on it is no marker. Some patterns take time with the square of a line's length."""


class EditError(Exception):
    """A reply that cannot be applied. `str(error)` is written for the model that sent it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Kind of problem: "no edit", "broken block", "not found", "ambiguous", "other file", "no-op", "tried" ..."""


@dataclass(frozen=True)
class SearchReplace:
    """One SEARCH/REPLACE block, as lines without their ends."""

    search: tuple[str, ...]
    replace: tuple[str, ...]
    file: str
    """Name of the file that the reply gives for it, or empty."""


def without_thoughts(text: str) -> str:
    """Drop the thoughts that some models send along: they may hold blocks that the model has dropped itself.

    Raises `EditError` when the reply ends inside them.
    """
    text = _thoughtless(text)
    if re.search(r"<(think|thinking|reasoning)>", text, flags=re.I):
        raise EditError("broken block", "The reply ends inside its thoughts. Answer shorter, with the edit.")
    return text


def _thoughtless(text: str) -> str:
    """Return the text without what stands between a mark of thoughts and the next mark that ends them.

    Its lines end with a line feed, and no byte order mark stands before the first. One pass over the marks: a pattern
    over the text would search it to its end for every mark that is not ended.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    kept, at = [], 0
    marks = list(_THOUGHT.finditer(text))
    # Backwards, so that for each opening mark the next one that ends it is known.
    ends: dict[str, int] = {}
    closing: dict[int, int] = {}
    for mark in reversed(marks):
        name = mark.group(2).lower()
        if mark.group(1):
            ends[name] = mark.end()
        elif name in ends:
            closing[mark.start()] = ends[name]
    for start, end in sorted(closing.items()):
        if start >= at:
            kept.append(text[at:start])
            at = end
    return "".join([*kept, text[at:]])


def _match(pattern: re.Pattern[str], line: str) -> re.Match[str] | None:
    """Match a line, unless it is too long to be what the pattern looks for."""
    return pattern.match(line) if len(line) <= LINE_LIMIT else None


@dataclass(frozen=True)
class Header:
    """The lines before an edit. Fields that are missing are empty or None."""

    hypothesis: str
    category: str
    predicted_delta: float | None
    """Expected change of val_bpb in bpb; negative is better."""
    risk: str
    finding: str = ""
    """Name of the finding that the edit tries."""
    drop: str = ""
    """Reason to give up the change that a follow-up is about; empty where it goes on."""


def read_header(text: str) -> Header:
    """Read the lines before the edit, however they are decorated."""
    before = _EDIT_START.split(_thoughtless(text))[0]

    def of(name: str) -> str:
        found = re.search(_FIELD.format(name=name), before, re.M | re.I)
        return found.group(1).strip(" \t*_`") if found else ""

    category = re.sub(r"[^a-z]+", "_", of("category").lower()).strip("_")
    delta = _NUMBER.search(of("predicted[ _-]?delta"))
    value = float(delta.group().replace("\u2212", "-")) if delta else None
    return Header(
        hypothesis=" ".join(of("hypothesis").split())[:500],
        category=category if category in CATEGORIES else "",
        predicted_delta=value if value is not None and abs(value) < 100 else None,
        risk=of("risk"),
        finding=of("finding"),
        drop=of("drop"),
    )


def split_proposals(text: str) -> list[str]:
    """Split a reply of several proposals at its lines `PROPOSAL 1`, `PROPOSAL 2` ...; one without such lines is whole.

    Thoughts are dropped, and lines inside a SEARCH/REPLACE block are not looked at.
    """
    parts: list[list[str]] = [[]]
    inside = False
    for line in _thoughtless(text).split("\n"):
        if _match(_SEARCH, line):
            inside = True
        elif _match(_REPLACE, line):
            inside = False
        if not inside and _match(_PROPOSAL, line):
            parts.append([])
        else:
            parts[-1].append(line)
    found = ["\n".join(part) for part in parts]
    # What stands before the first line is an introduction, unless it is a proposal itself.
    return found if len(found) == 1 or holds_edit(found[0]) else found[1:]


def holds_edit(text: str) -> bool:
    """Tell whether a reply seems to have an edit, well-formed or not."""
    return _EDIT_START.search(_thoughtless(text)) is not None


def has_blocks(text: str) -> bool:
    """Tell whether any line looks like a marker of a block."""
    return any(_match(_MARKER, line) for line in text.split("\n"))


def read_blocks(text: str) -> list[SearchReplace]:
    """Read every block of a reply, in order. Raises `EditError` when any is broken."""
    lines = text.split("\n")
    blocks: list[SearchReplace] = []
    at = 0
    while at < len(lines):
        start = _match(_SEARCH, lines[at])
        if start is None:
            if _match(_MARKER, lines[at]):
                raise EditError("broken block", f"A marker stands where none belongs: {lines[at].strip()!r}.")
            at += 1
            continue
        end = next((i for i in range(at + 1, len(lines)) if _match(_MARKER, lines[i])), len(lines))
        number = len(blocks) + 1
        if end == len(lines) or not _match(_REPLACE, lines[end]):
            raise EditError("broken block", f"Block {number} has no line `>>>>>>> REPLACE` at its end.")
        middle = [i for i in range(at + 1, end) if _match(_DIVIDER, lines[i])]
        if len(middle) != 1:
            what = "no line `=======`" if not middle else "more than one line `=======`"
            raise EditError("broken block", f"Block {number} has {what} between its two parts.")
        search, replace = lines[at + 1 : middle[0]], lines[middle[0] + 1 : end]
        search, replace = _without_margin(start.group(1), search, replace)
        search, replace = _without_fences(search, replace)
        blocks.append(SearchReplace(tuple(search), tuple(replace), start.group(2) or _file_before(lines, at)))
        at = end + 1
    return blocks


def _without_margin(margin: str, *parts: list[str]) -> tuple[list[str], ...]:
    """Remove the indentation from the parts of a block whose markers are indented, as in a list."""
    if margin and all(line.startswith(margin) or not line.strip() for part in parts for line in part):
        return tuple([line[len(margin) :] if line.startswith(margin) else "" for line in part] for part in parts)
    return parts


def _without_fences(*parts: list[str]) -> tuple[list[str], ...]:
    """Remove the fences around each part of a block."""
    fenced = [len(part) >= 2 and bool(_match(_FENCE, part[0])) and part[-1].strip() in ("```", "~~~") for part in parts]
    if all(inside or not part for inside, part in zip(fenced, parts, strict=True)):
        return tuple(part[1:-1] for part in parts)
    return parts


def _file_before(lines: Sequence[str], at: int) -> str:
    """Return the file name on the line above a block or fence, or an empty string."""
    for i in range(at - 1, max(-1, at - 4), -1):
        if _match(_FENCE, lines[i]) or not lines[i].strip():
            continue
        named = _match(_NAMED, lines[i])
        return named.group(1) if named else ""
    return ""


def check_file(file: str) -> None:
    """Raise `EditError` for an edit of another file than the train file."""
    if file and re.split(r"[/\\]", file)[-1] != TRAIN_FILE:
        raise EditError("other file", f"Only {TRAIN_FILE} may be edited, not {file}.")


def check_complete(new: Sequence[str], old: Sequence[str]) -> None:
    """Raise `EditError` when a line of `new` stands for lines that were left out; `old` is the file before."""
    known = {line.strip() for line in old}
    for line in new:
        if _match(_ELISION, line) and line.strip() not in known:
            raise EditError("elision", f"Something is left out: {line.strip()!r}. Write all of it.")


def read_whole(text: str, old: str) -> str:
    """Read the file in the reply's one fence that holds a train file. Raises `EditError` when there is none."""
    fences = _fences(text)
    if any(not closed for _, _, closed in fences):
        raise EditError("broken block", "The last fence is not closed: the reply seems to have been cut off.")
    if not fences:
        raise EditError("no edit", "The reply has no edit: neither a SEARCH/REPLACE block nor a fenced file.")
    whole = [(file, body) for file, body, _ in fences if _is_train_file(body)]
    if len(whole) != 1:
        if len(fences) == 1:
            check_file(fences[0][0])
        few = (
            "more than one whole file" if whole else "no whole file with build, train, logits and VOCAB_SIZE in a fence"
        )
        raise EditError("no edit", f"The reply has {few}. Give SEARCH/REPLACE blocks, or the whole file once.")
    file, body = whole[0]
    check_file(file)
    check_complete(body.split("\n"), old.split("\n"))
    return body.rstrip("\n") + "\n"


def _fences(text: str) -> list[tuple[str, str, bool]]:
    """Return file name (or empty), body, and whether it is closed, for every fence."""
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        start = _match(_FENCE, lines[at])
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
