"""Hand calls that are meant for the system's archiver `ar` over to it.

In an activated environment our `ar` hides the one of binutils, which compilers and build tools call by name.
A call that can only be meant for the archiver goes to the next `ar` on PATH.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

import click

# One operation letter with its modifiers behind it (`rcs`, `-t`, `q`), or modifiers first, as build tools write
# it (`cr`, `cru`).
_MODIFIERS = "abcDfilLNoOPsSTuUvV"
_OPERATION = re.compile(rf"-?([dmpqrstx][{_MODIFIERS}]*|[cuvDSTU][{_MODIFIERS}]*[dmpqrx][{_MODIFIERS}]*)")
# Options of binutils and LLVM that may come before the operation. `-V` and `-M` stand alone.
_OPTION = re.compile(r"--(plugin|target|output|thin|record-libdeps|format|rsp-quoting)(=.*)?|-X(32|64|32_64)|-V|-M|@.+")
# `-q` is our --quiet and the archiver's quick append; `-qv` likewise. An archive's name behind it decides.
_AMBIGUOUS = re.compile(r"-qv*")
_ARCHIVE = re.compile(r".+\.(a|lib|rlib)")
_OUR_MARK = b"autoresearch.core.cli."  # every entry point script of ours imports it


def is_archiver_call(argv: Sequence[str], commands: Collection[str]) -> bool:
    """Tell whether a command line, program name first, is meant for the system's archiver."""
    if len(argv) < 2 or Path(argv[0]).name != "ar":
        return False
    first = argv[1]
    if first in commands:
        return False
    # `ar -q lib.a x.o` appends to an archive, `ar -q doctor` is ours and quiet.
    if _AMBIGUOUS.fullmatch(first):
        return len(argv) > 2 and _ARCHIVE.fullmatch(argv[2]) is not None
    return bool(_OPERATION.fullmatch(first) or _OPTION.fullmatch(first))


def find_archiver(search_path: str) -> Path | None:
    """Find the first `ar` on a PATH that is not an entry point of ours."""
    for folder in search_path.split(os.pathsep):
        candidate = Path(folder or ".") / "ar"
        if candidate.is_file() and os.access(candidate, os.X_OK) and not _is_ours(candidate):
            return candidate
    return None


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return _OUR_MARK in file.read(4096)


def hand_over(argv: Sequence[str]) -> NoReturn:
    """Replace this process by the system's archiver; exit with code 3 when there is none."""
    found = find_archiver(os.environ.get("PATH", os.defpath))
    if found is None:
        click.echo(
            f"ar: '{argv[1]}' is an operation of the system's archiver, and there is no other 'ar' on PATH. "
            "Fix: install binutils; if you meant autoresearch, see 'autoresearch --help'.",
            err=True,
        )
        sys.exit(3)
    sys.stdout.flush()
    os.execv(found, [str(found), *argv[1:]])
