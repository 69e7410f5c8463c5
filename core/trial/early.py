"""Imports at a lower priority, in a child that waits: most of the time they take is what training leaves idle."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import sys
import threading
from pathlib import Path

from autoresearch.core.trainfile.gate import MODULES

NICENESS = 5
"""A third of the usual share of a busy core. At the lowest priority an import starves where others work too, and the
trial would wait for it."""


def import_early(backend: str, path: str) -> threading.Thread:
    """Begin to import the backend's runtime and the packages that the train file names; the file itself is not run.

    Only what any train file may import is imported, and a failure is left to the real import. The thread's priority
    is its own: the process goes on at its usual one.
    """
    names = [f"autoresearch.backends.{backend}.runtime", *named_packages(path)]
    thread = threading.Thread(target=_import, args=(names,), daemon=True)
    thread.start()
    return thread


def named_packages(path: str) -> list[str]:
    """Modules that the file's import statements name, in order, if a train file may import them at all."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return [name for name in found if name.partition(".")[0] in MODULES]


def _import(names: list[str]) -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "darwin":
            if hasattr(os, "PRIO_DARWIN_THREAD"):
                os.setpriority(os.PRIO_DARWIN_THREAD, 0, os.PRIO_DARWIN_BG)
        else:
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # on Linux 0 means this thread
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
