"""Sources of a run stay in its ledger until somebody asks for them."""

from __future__ import annotations

import threading
from pathlib import Path

from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


def test_an_attempts_source_is_read_when_asked_for_in_any_thread_and_after_the_run(tmp_path: Path) -> None:
    with open_run(make_workspace(tmp_path)) as run:
        Loop(run, Widths(5, 4), Greedy(), Scripted(), limits=Limits(2)).go()
        attempts = run.history("").attempts
        held = [value for attempt in attempts for value in vars(attempt).values() if isinstance(value, str)]
        assert not any("def build" in text for text in held)
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.extend(attempt.source for attempt in attempts))
        reader.start()
        reader.join()
    assert [attempt.source for attempt in attempts] == read
    assert [f"WIDTH = {width}" in source for width, source in zip((10, 5, 4), read, strict=True)] == [True] * 3
