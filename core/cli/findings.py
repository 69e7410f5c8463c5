"""`--findings`: whose findings are offered to a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.core.otherruns import OtherRuns

findings_option: Callable[[Any], Any] = click.option(
    "--findings",
    multiple=True,
    default=("auto",),
    show_default=True,
    metavar="auto|none|FOLDER",
    help="Try what runs on other devices have kept: this workspace's, none, or a run's folder; several may be given.",
)


def other_runs(workspace: Path, wanted: tuple[str, ...], say: Callable[[str], None]) -> OtherRuns | None:
    """The runs that are looked at; None where nobody's findings are wanted. Raises `UsageError`."""
    from autoresearch.core.otherruns import OtherRuns, folders_of

    if "none" not in wanted:
        return OtherRuns(folders_of(workspace, wanted), say)
    if len(wanted) > 1:
        raise UsageError("--findings none, and others beside it.", fix="leave either out")
    return None
