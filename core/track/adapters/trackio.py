"""trackio: writes to a local database; `trackio show` serves a page of it."""

from __future__ import annotations

from collections.abc import Mapping

import trackio

from autoresearch.core.track.tracker import PROJECT, TrackedRun


class TrackioTracker:
    """Reads trackio's own environment variables (TRACKIO_DIR, TRACKIO_SPACE_ID ...)."""

    def start(self, run: TrackedRun) -> str:
        """Start a run named by the key, or resume the one of that name."""
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
        """Log the numbers and texts of one decision."""
        trackio.log({**numbers, **texts}, step=step)

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """Flush everything and close the run."""
        trackio.finish()


TRACKER = TrackioTracker
