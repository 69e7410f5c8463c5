"""Weights & Biases: reports online with an API key, else to a folder that `wandb sync` uploads later."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any

import wandb

from autoresearch.core.track.tracker import PROJECT, TrackedRun


class WandbTracker:
    """Reads wandb's own environment variables (WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE, WANDB_BASE_URL ...)."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        """Start the run under its key, or resume it."""
        # Without an API key wandb would ask for one on the terminal, which this process does not have.
        mode: Any = None if "WANDB_MODE" in os.environ or _has_key() else "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.key,
            name=run.tag,
            config=dict(run.config),
            dir=run.folder,
            resume="allow",
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),
        )
        return self._run.url or f"offline in {self._run.dir}; `wandb sync` sends it"

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Log the numbers and texts of one decision."""
        self._run.log({**numbers, **texts}, step=step)

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """Write the texts to the run's summary and close the connection."""
        self._run.summary.update(texts)
        self._run.finish(exit_code=0 if state in ("finished", "interrupted") else 1)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


TRACKER = WandbTracker
