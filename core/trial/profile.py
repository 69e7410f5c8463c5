"""The profile of a train child: read with distrust, and kept as a page for people and researchers."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from pathlib import Path
from typing import Any

from autoresearch.core.trial.child.channel import Profiled
from autoresearch.core.trial.request import ProfileResult

TRACE = "trace.json.gz"
"""Name of the whole trace, in the format of Chrome's tracing."""
PAGE = "profile.md"
"""Name of the page that sums it up."""
TRACE_LIMIT_BYTES = 256 * 2**20
"""Largest trace that is kept."""
MAX_SECTIONS, MAX_OPERATIONS, NAME_LIMIT, NOTE_LIMIT = 10, 20, 80, 400


def read(said: Profiled) -> ProfileResult | None:
    """Cut what a child says of its time to a few plain values, for a person's screen; None when it is no profile."""
    try:
        sections = {_plain(name): _seconds(value) for name, value in [*said.sections.items()][:MAX_SECTIONS]}
        operations = [
            (_plain(name), _seconds(seconds), int(calls)) for name, seconds, calls in said.operations[:MAX_OPERATIONS]
        ]
        return ProfileResult(
            seconds=_seconds(said.seconds),
            batches=said.batches,
            sections=sections,
            operations=operations,
            note=_plain(said.note, NOTE_LIMIT),
        )
    except (TypeError, ValueError, OverflowError):
        return None


def keep(profile: ProfileResult | None, folder: Path, work_fd: int) -> None:
    """Write the page into the trial's folder, and move the trace there if it is a regular file of a sensible size.

    `work_fd` was opened before the child ran, so no link of the child's is followed.
    """
    for name in (PAGE, TRACE):
        (folder / name).unlink(missing_ok=True)
    if profile is None:
        return
    (folder / PAGE).write_text(page(profile), encoding="utf-8")
    with contextlib.suppress(OSError):
        facts = os.stat(TRACE, dir_fd=work_fd, follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and facts.st_size <= TRACE_LIMIT_BYTES:
            os.rename(TRACE, folder / TRACE, src_dir_fd=work_fd)


def page(profile: ProfileResult) -> str:
    """Return the page as Markdown: two tables and a note."""
    total = sum(profile.sections.values()) or 1.0
    each = 1000 / max(1, profile.batches)
    lines = [
        f"# Where the time goes: {profile.batches} batches in {profile.seconds:.2f} s",
        "",
        "| part of a step | ms a batch | share |",
        "|---|---:|---:|",
        *(f"| {name} | {each * s:.2f} | {s / total:.1%} |" for name, s in profile.sections.items()),
        "",
        "| longest operations | ms a batch | share | calls a batch |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {each * s:.2f} | {s / total:.1%} | {calls / max(1, profile.batches):.1f} |"
            for name, s, calls in profile.operations
        ),
        "",
        profile.note,
    ]
    return "\n".join(lines) + "\n"


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("no duration")
    return seconds


def _plain(text: Any, limit: int = NAME_LIMIT) -> str:
    """Cut a child's text to one printable line, without the characters that end a table's cell."""
    return "".join(c if c.isprintable() and c not in "|`<>" else " " for c in str(text)[:limit])
