"""The dashboard's server in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.core.report.web.api import Quotas
from autoresearch.core.report.web.drawing import SampleDrawer
from autoresearch.core.report.web.server import Dashboard

QUOTAS = {
    "window": 10,
    "structural": 3,
    "bold": 1,
    "kinds": ["knob"],
    "least": "bold",
    "closed": ["init"],
    "why": "due",
}
"""What the quotas ask, as the dashboard is told."""


@contextmanager
def served(
    workspace: Path,
    token: str | None = None,
    quotas: Quotas = lambda decided: None,
    drawer: SampleDrawer | None = None,
    **more: str,
) -> Iterator[int]:
    """Serve the workspace's runs; gives the port. `more` is for what acts: see `Dashboard`."""
    server = Dashboard(("127.0.0.1", 0), workspace / "runs", token=token, quotas=quotas, drawer=drawer, **more)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.port
    finally:
        server.stop()
        thread.join()
