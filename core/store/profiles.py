"""The page that `ar train --profile` has left, for whoever wants to make the train file faster."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from autoresearch.core.store.fingerprint import fingerprint
from autoresearch.core.trial.profile import PAGE

LIMIT = 4000
"""Characters of a page that are passed on: the parts of a step and the longest operations."""


def last_profile(runs: Path, backend: str, preset: str, incumbent: str) -> str:
    """The newest page of a trial of this backend and preset under `runs`/trials, and what was profiled; else empty.

    `incumbent` is the source of the best train file so far.
    """
    named = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(backend)}(-\d+)?")
    for path in sorted((runs / "trials").glob(f"*/{PAGE}"), reverse=True):
        if named.fullmatch(path.parent.name) and _preset_of(path.parent) == preset:
            try:
                page = path.read_text(encoding="utf-8").strip()[:LIMIT]
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            except (OSError, UnicodeDecodeError):
                continue
            same = _same(path.parent, incumbent)
            what = "the best train file so far" if same else "another version of the train file"
            return f"Of {what}, {when}.\n\n{page.removeprefix('# ')}"
    return ""


def _preset_of(trial: Path) -> str | None:
    try:
        return str(json.loads((trial / "result.json").read_text(encoding="utf-8"))["preset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same(trial: Path, incumbent: str) -> bool:
    try:
        return fingerprint((trial / "train.py").read_text(encoding="utf-8")) == fingerprint(incumbent)
    except (OSError, UnicodeDecodeError):
        return False
