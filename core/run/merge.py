"""Three-way merges of train files: an edit of one version, applied to another."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from autoresearch.core.errors import SourceError
from autoresearch.core.store.git import try_git
from autoresearch.core.trainfile.constants import (
    ConstantValue,
    constant_lines,
    is_number,
    read_constants,
    write_constants,
)
from autoresearch.core.trainfile.trees import parsed

MERGE_FAILED = 128
"""Lowest exit code of `git merge-file` that means an error; below, it is the number of conflicts."""


def merge(ours: str, base: str, theirs: str) -> str | None:
    """Merge three texts with `git merge-file`; return None when they conflict. Raises `SourceError`."""
    with tempfile.TemporaryDirectory(prefix="ar-merge-") as name:
        files = [Path(name) / part for part in ("ours", "base", "theirs")]
        for file, text in zip(files, (ours, base, theirs), strict=True):
            file.write_text(text, encoding="utf-8", newline="")
        done = try_git(Path(name), "merge-file", "-p", "-q", *(file.name for file in files))
    if done.returncode >= MERGE_FAILED:
        said = " ".join(done.stderr.decode("utf-8", errors="replace").split())
        raise SourceError(f"`git merge-file` failed: {said}")
    return done.stdout.decode("utf-8") if done.returncode == 0 else None


def reapply(edited: str, base: str, onto: str) -> str | None:
    """Make the edit from `base` to `edited` on `onto`; return None when it does not fit there, or no longer parses.

    Constants are merged by name first: changes of two on neighbouring lines would be a conflict of text and are none.
    A constant that both sides moved the same way takes the edit's value; moved apart, it is a conflict.
    """
    merged = _merge_by_name(edited, base, onto)
    if merged is None:
        merged = merge(onto, base, edited)
    return merged if merged is not None and parsed(merged) is not None else None


def moved_constants(edited: str, base: str) -> frozenset[str]:
    """Return the names of the constants that an edit of `base` moved; none where either has no constants block."""
    try:
        before, after = read_constants(base), read_constants(edited)
    except SourceError:
        return frozenset()
    return frozenset(name for name, value in after.items() if name in before and _moved(value, before[name]))


def settled_constants(edited: str, base: str, onto: str) -> frozenset[str]:
    """Return the names of the constants that `onto` has moved since `base`, where it is as far as the edit goes.

    One that the edit moves the same way and further is not settled.
    """
    names = moved_constants(onto, base) & moved_constants(edited, base)
    if not names:
        return names
    before, after, there = (read_constants(source) for source in (base, edited, onto))
    return frozenset(name for name in names if not _further(before[name], after[name], there[name]))


def _further(before: ConstantValue, wanted: ConstantValue, now: ConstantValue) -> bool:
    """Tell whether `wanted` is beyond `now`, as seen from `before`."""
    if not (is_number(before) and is_number(wanted) and is_number(now)):
        return False
    return before < now < wanted or before > now > wanted


def add_edit(edited: str, base: str, onto: str, settled: Collection[str]) -> str | None:
    """Make the edit from `base` to `edited` on `onto` as `reapply` does, but leave the constants in `settled` alone.

    Those have another edit's value in `onto`. Returns None where the edit does not fit, a settled constant that it
    moved the other way included.
    """
    kept = moved_constants(edited, base).intersection(settled)
    if not kept:
        return reapply(edited, base, onto)
    try:
        before, after, there = (read_constants(source) for source in (base, edited, onto))
        if not all(name in there and _agree(before[name], after[name], there[name]) for name in kept):
            return None
        return reapply(write_constants(edited, {name: there[name] for name in kept}), base, onto)
    except (SourceError, UnicodeEncodeError):
        return None


def _merge_by_name(edited: str, base: str, onto: str) -> str | None:
    """Merge the constants by value and the rest as text.

    Returns None without a constants block, when both sides moved a constant apart, or when the rest conflicts.
    """
    try:
        values, after, there = (read_constants(source) for source in (base, edited, onto))
        changed = {name: value for name, value in after.items() if name in values and value != values[name]}
        if not all(name in there and _agree(values[name], value, there[name]) for name, value in changed.items()):
            return None
        # With the edit's values written into both older texts, constants that it changed are equal in all three, and
        # the merge of text sees the rest alone.
        lines = constant_lines(edited)
        ours, before = (_with_lines(write_constants(text, changed), lines, changed) for text in (onto, base))
        return merge(ours, before, edited)
    except (SourceError, UnicodeEncodeError):
        return None


def take_back(final: str, before: str, after: str) -> tuple[str, tuple[str, ...]] | None:
    """Undo the edit from `before` to `after` in a later version: constants by value, the rest by a merge of text.

    A constant gets the value that it had before the edit. Returns the source, and the names of the constants that
    later edits had moved on: those edits' values go with it. None when the rest conflicts or no longer parses.
    """
    try:
        old, new, now = (read_constants(source) for source in (before, after, final))
        back = {name: old[name] for name in old if name in new and name in now and _moved(old[name], new[name])}
        later = tuple(name for name in back if _moved(now[name], new[name]) and _moved(now[name], old[name]))
        # A constant that the edit added is taken out as a line of text, whatever its value is by now.
        added = {name: value for name, value in new.items() if name not in old and name in now}
        base = write_constants(after, back)
        lines, as_before = constant_lines(base), constant_lines(before)
        for name in back:  # equal values may be written in two ways, which a merge of text would take for an edit
            base = base.replace("\n" + lines[name], "\n" + as_before[name], 1)
        merged = merge(write_constants(final, {**back, **added}), base, before)
    except (SourceError, UnicodeEncodeError):
        later, merged = (), merge(final, after, before)
    return (merged, later) if merged is not None and parsed(merged) is not None else None


def _with_lines(source: str, lines: Mapping[str, str], names: Iterable[str]) -> str:
    """Write constants as another text does: a value that is written in two ways would be an edit of the text."""
    mine = constant_lines(source)
    for name in names:
        source = source.replace("\n" + mine[name], "\n" + lines[name], 1)
    return source


def _moved(one: ConstantValue, other: ConstantValue) -> bool:
    """Tell whether two values differ; 1, 1.0 and True are three values."""
    return one != other or type(one) is not type(other)


def _agree(before: ConstantValue, wanted: ConstantValue, now: ConstantValue) -> bool:
    """Tell whether a constant may be set to `wanted`: nothing has moved it since, or only the same way."""
    if now in (before, wanted):
        return True
    if not (is_number(before) and is_number(wanted) and is_number(now)):
        return False
    return wanted != before and (wanted > before) == (now > before)
