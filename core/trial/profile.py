"""The profile of a train child: read with distrust, and kept as a page for people and researchers."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from autoresearch.core.trial.child.channel import Profiled
from autoresearch.core.trial.request import ProfileResult
from autoresearch.core.trial.weights import Shapes

TRACE = "trace.json.gz"
"""Name of the whole trace, in the format of Chrome's tracing."""
PAGE = "profile.md"
"""Name of the page that sums it up."""
TRACE_LIMIT_BYTES = 256 * 2**20
"""Largest trace that is kept."""
GRACE_SECONDS = 60.0
"""Grace of a profiled trial, `Budget.grace_floor_seconds`: summing up the trace takes time near the deadline."""
LARGEST_WEIGHTS = 6
"""Number of weights that are named with their sizes."""
KINDS = (
    ("elementwise", r"cpp_fused|triton_poi"),
    ("reductions", r"triton_(red|per)"),
    ("attention", r"attention|flex|sdpa|flash|fmha"),
    ("copies", r"copy|clone|contiguous|memcpy|memset|\bto\b|_to_copy|cat\b|fill_|zero_"),
    ("products", r"\bmm|addmm|bmm|matmul|linear|gemm|cutlass|cublas|xmma|nvjet|einsum|dot\b"),
    ("lookups", r"embedding|index|gather|scatter|unique|sort|hash"),
    ("reductions", r"softmax|norm|sum|mean|amax|argmax|nll_loss|cross_entropy"),
    ("optimizer", r"adam|optim|foreach|lerp|muon|newton"),
    (
        "elementwise",
        r"mul|add|sub|div|pow|exp|tanh|sigmoid|relu|gelu|silu|where|elementwise|sqrt|clamp",
    ),
)
"""Kinds of operations, and words in their names; the first that fits counts."""
MOST_SECONDS, MOST_CALLS = 1e6, 2**53
"""Longest time, and first number of calls or batches, that no trace of a few batches can have."""
MAX_SECTIONS, MAX_OPERATIONS, NAME_LIMIT, NOTE_LIMIT = 10, 20, 80, 400


def read(said: Profiled) -> ProfileResult | None:
    """Cut what a child says of its time to a few plain values, for a person's screen; None when it is no profile."""
    try:
        sections = {_plain(name): _seconds(value) for name, value in [*said.sections.items()][:MAX_SECTIONS]}
        operations = [
            (_plain(name), _seconds(seconds), _count(calls))
            for name, seconds, calls in said.operations[:MAX_OPERATIONS]
        ]
        return ProfileResult(
            seconds=_seconds(said.seconds),
            batches=_count(said.batches),
            sections=sections,
            operations=operations,
            note=_plain(said.note, NOTE_LIMIT),
        )
    except (TypeError, ValueError, OverflowError, RecursionError):  # the last: a name may be lists in lists
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
    kinds, weights = by_kind(profile), ", ".join(f"{name} {mib:.1f}" for name, mib in profile.weights)
    lines = [
        f"# Where the time goes: {profile.batches} batches in {profile.seconds:.2f} s",
        "",
        *([f"A step: {kinds}.", ""] if kinds else []),
        *([f"Largest weights, MiB in float32: {weights}.", ""] if weights else []),
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


def by_kind(profile: ProfileResult) -> str:
    """Sum the longest operations by their kind, such as "products 45.0 ms, elementwise 35.1"; "" without operations.

    Only operations of the framework have kinds; the host's functions, which name their file, have none.
    """
    sums: dict[str, float] = {}
    for name, seconds, _ in profile.operations:
        if ".py:" in name or name.startswith(("built-in", "method ")):
            continue
        kind = next((kind for kind, words in KINDS if re.search(words, name.lower())), "other")
        sums[kind] = sums.get(kind, 0.0) + 1000.0 * seconds / max(1, profile.batches)
    ordered = sorted(sums.items(), key=lambda one: -one[1])
    return ", ".join(f"{kind} {ms:.1f}{'' if at else ' ms'}" for at, (kind, ms) in enumerate(ordered))


def with_weights(profile: ProfileResult | None, shapes: Shapes) -> ProfileResult | None:
    """Add the largest weights and their sizes in float32."""
    if profile is None:
        return None
    sizes = [(_plain(name), 4.0 * math.prod(shape) / 2**20) for name, shape in shapes.items()]
    largest = sorted(sizes, key=lambda one: -one[1])[:LARGEST_WEIGHTS]
    return profile.model_copy(update={"weights": largest})


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError("no duration")
    return seconds


def _count(value: Any) -> int:
    count = int(value)
    if not 0 <= count < MOST_CALLS:
        raise ValueError("no count")
    return count


def _plain(text: Any, limit: int = NAME_LIMIT) -> str:
    """Cut a child's text to one printable line, without the characters that end a table's cell."""
    return "".join(c if c.isprintable() and c not in "|`<>" else " " for c in str(text)[:limit])
