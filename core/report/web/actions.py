"""A person's actions on a run from the dashboard: note, pin, pause, and stop after the trials under way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from autoresearch.core.errors import UsageError
from autoresearch.core.report.web.queries import RunQueries
from autoresearch.core.report.wording import one_line
from autoresearch.core.store.liveness import shown_state
from autoresearch.core.store.remarks import Kind, leave_remark
from autoresearch.core.store.wishes import Wish, WishFile

REMARKS: Mapping[str, Kind] = {kind: kind for kind in get_args(Kind)}
WISHES: Mapping[str, Wish] = {wish: wish for wish in get_args(Wish)}
RESUME = "resume"
"""Action that takes a pause back."""
SHOWN_CHARACTERS = 60
LARGEST_NUMBER = 10**9
"""Bound of an experiment's number: a ledger cannot be asked about what sqlite does not hold."""


def act(folder: Path, body: bytes) -> dict[str, Any]:
    """Do what a request to the run in `folder` asks for, and return what stands then.

    The body is JSON: `action` is a kind of remark with `experiment` and, for a note, `text`, or a wish, or "resume".
    Raises `UsageError` for anything else, and `LedgerError` where the run cannot be read or written.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise UsageError("the action is not a JSON object.", fix='send {"action": "pause"}')
    action, number, text = str(asked.get("action")), asked.get("experiment"), asked.get("text", "")
    with RunQueries(folder) as reader:
        if action in REMARKS:
            fits = isinstance(text, str) and not isinstance(number, bool)
            if not fits or not isinstance(number, int) or not 0 <= number < LARGEST_NUMBER:
                raise UsageError(f"{action} needs the number of an experiment.", fix="send its number as `experiment`")
            return leave_remark(reader, number, REMARKS[action], text).record()
        if action in WISHES or action == RESUME:
            if shown_state(reader.run()) != "running":
                raise UsageError("no loop runs here.", fix=f"start it with `ar loop --tag {reader.run().tag}`")
            wishes = WishFile(folder)
            wishes.clear() if action == RESUME else wishes.put(WISHES[action])
            return {"wish": wishes.read()}
    known = ", ".join([*REMARKS, *WISHES, RESUME])
    raise UsageError(f"there is no action {one_line(action, SHOWN_CHARACTERS)!r}.", fix=f"choose of {known}")
