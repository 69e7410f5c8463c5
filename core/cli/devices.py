"""On which devices of this machine the loop's trials run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from autoresearch.core.fleet.local import LocalExecutor


class Slots(click.ParamType):
    """A number, or "auto" for as many as there are."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Refuse what is neither."""
        if value == "auto" or (isinstance(value, int) and value > 0):
            return value
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return int(value)


slots_option = click.option(
    "--slots",
    type=Slots(),
    default=None,
    metavar="N|auto",
    help="Trials at once: one a GPU, or the CPU's cores shared out.  [default: one trial at a time]",
)


def local_executor(slots: int | str | None, kind: str, say: Callable[[str], None]) -> LocalExecutor:
    """The devices of this machine that were asked for, locked against other loops, and said.

    `kind` is the device's. Raises `UsageError` when there are not so many, `PrerequisiteError` when others use them.
    """
    from autoresearch.core.config import data_dir
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.fleet.slots import Claim, find_slots

    shared_cpu = kind in ("cpu", "numpy")
    if slots is None and shared_cpu:
        return LocalExecutor()
    count = None if slots == "auto" else int(slots or 1)
    found = find_slots(kind, None if slots is None else count)
    claim = Claim(found, data_dir() / "devices", count)
    if len(claim.slots) > 1 or slots is not None:
        plural = "s" if len(claim.slots) > 1 else ""
        say(f"{len(claim.slots)} trial{plural} at a time: {'; '.join(slot.words for slot in claim.slots)}")
    if shared_cpu and len(claim.slots) > 1:
        say("trials on one CPU slow each other down, and compare with none that had the CPU for themselves")
    return LocalExecutor(claim.slots, claim)


_SHARED = " (1 of "


def machine_words(words: str, kind: str, executor: LocalExecutor) -> str:
    """What scores depend on beside the train file: a share of a CPU is another machine than all of it."""
    count = executor.capacity()
    return f"{words}{_SHARED}{count} slots)" if kind in ("cpu", "numpy") and count > 1 else words


def whole_machine(words: str) -> str:
    """The machine of which `machine_words` may have named a share."""
    return words.partition(_SHARED)[0]
