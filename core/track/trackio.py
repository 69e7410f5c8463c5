"""trackio: a local database, with a page that `trackio show` serves."""

from __future__ import annotations

from collections.abc import Mapping

import trackio

from autoresearch.core.track.tracker import PROJECT, TrackedRun


class TrackioTracker:
    """Honours trackio's own variables (TRACKIO_DIR, TRACKIO_SPACE_ID ...)."""

    def start(self, run: TrackedRun) -> str:
        """A run of its key; trackio goes on with one of that name."""
        trackio.init(
            project=PROJECT,
            name=run.key,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return f"trackio show --project {PROJECT}"

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Numbers and words of one decision."""
        trackio.log({**numbers, **texts}, step=step)

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """Write what is not written yet."""
        trackio.finish()
