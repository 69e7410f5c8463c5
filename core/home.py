"""The home folder in paths that a person has written."""

from __future__ import annotations

from pathlib import Path

from autoresearch.core.errors import UsageError


def expand_home(path: Path | str) -> Path:
    """Put the home folder in the place of `~` or `~name`. Raises `UsageError` for a name that has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{str(path)!r} begins with a home folder that does not exist.", fix="name the folder itself"
        ) from error
