"""Files and folders that a command writes at its end: checked before it computes for minutes."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from autoresearch.core.cli.context import Settings
from autoresearch.core.errors import UsageError, system_words


def check_writable(path: Path, fix: str, *, folder: bool = False) -> Path:
    """Return the absolute path of a file, or of a `folder`, that a command will write, and leave nothing there yet.

    Folders above it may be missing: they are made when it is written. Raises `UsageError`, with `fix`, where it cannot
    be written.
    """
    try:
        target = path.expanduser().absolute()
        mode = _mode(target)
        if mode is not None and folder != stat.S_ISDIR(mode):
            raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is not a folder")
        if mode is not None and not folder:
            if not stat.S_ISREG(mode):  # opening a pipe would wait for its reader
                raise OSError("it is not a plain file")
            if not os.access(target, os.W_OK):
                raise PermissionError("it may not be changed")
            return target
        above = next(parent for parent in target.parents if _mode(parent) is not None)
        # A file tells more than `os.access`, which lets root write to file systems that take no files.
        with tempfile.TemporaryFile(dir=above):
            return target
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte in the path, a home that nobody has
        raise UsageError(f"{path} cannot be written: {system_words(error)}.", fix=fix) from error


def draw_picture(settings: Settings, path: Path, draw: Callable[[], object]) -> bool:
    """Draw a picture at a command's end; return False where `draw` does, for want of anything to draw.

    Where it cannot be written, say why and return False: the figures are still to be printed.
    """
    try:
        return draw() is not False
    except OSError as error:
        settings.say(f"the picture {path} cannot be written: {system_words(error)}")
        return False


def _mode(path: Path) -> int | None:
    """Return the mode of what lies there, None for nothing. Raises `OSError` for a path that can lead nowhere."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - `Path.exists` hides some errors
    except FileNotFoundError:
        return None
