"""Requests for trials of the null backend, and train files that go wrong in their own ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trial.request import Budget, TrialRequest

NULL_SOURCE = (Path(backends.__path__[0]) / "null" / "train.py").read_text(encoding="utf-8")
BUDGET = Budget(train_seconds=0.3, startup_seconds=120.0, grace_floor_seconds=2.0)


def request(prepared: Prepared, folder: Path, addition: str = "", **changes: Any) -> TrialRequest:
    """A trial of the null train file with `addition` at its end, which may define its functions anew.

    The static gate is off: what goes wrong behind it is what these trials are about.
    """
    settings: dict[str, Any] = {
        "source": f"{NULL_SOURCE}\n\n{addition}\n",
        "backend": "null",
        "preset": "demo",
        "prepared": prepared.folder,
        "eval_seq_len": 256,
        "score_rows": 16,
        "audit_share": 2.0,  # a split of 40 rows is too small for the usual one
        "folder": folder,
        "budget": BUDGET,
        "gate": False,
        **changes,
    }
    return TrialRequest(**settings)


def line_of(source: str, words: str) -> int:
    """The number of the first line that holds `words`."""
    return next(number for number, line in enumerate(source.splitlines(), 1) if words in line)
