"""What a session does where the reader of its output leaves."""

from __future__ import annotations

import io
import json
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from autoresearch.core.cli.context import Settings
from autoresearch.core.cli.run import session
from autoresearch.core.run.loop import Stop
from autoresearch.core.store.rows import ExperimentRow


class LeavingReader(io.StringIO):
    """Standard output whose reader leaves after the first line."""

    def write(self, text: str) -> int:
        if "\n" in self.getvalue():
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_a_reader_of_decisions_that_leaves_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    said: list[str] = []
    out = LeavingReader()
    monkeypatch.setattr("sys.stdout", out)
    hooks: Any = SimpleNamespace(decided=lambda row: told.append(row.number))
    decided = session._on_decided(hooks, Settings(json=True), said.append)
    for number in range(3):
        decided(ExperimentRow(number, "decided", 0, None, "", "a change", "init", "tuner", None, {}, 0.0))
    assert told == [0, 1, 2]
    assert [json.loads(line)["experiment"] for line in out.getvalue().splitlines()] == [0]
    assert said == ["standard output takes no more (Broken pipe): the ledger has every decision"]


def test_messages_that_nobody_reads_end_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    out = LeavingReader()
    monkeypatch.setattr("sys.stderr", out)
    for _ in range(3):
        Settings().say("a message")
    assert out.getvalue() == "a message\n"


@pytest.mark.parametrize(("before", "wish"), [(signal.SIG_DFL, "kill"), (signal.SIG_IGN, "go on")])
def test_a_closed_terminal_stops_a_run_like_a_termination_unless_nohup_started_it(before: Any, wish: str) -> None:
    outside, stop = signal.signal(signal.SIGHUP, before), Stop()
    try:
        with session.listen(stop, lambda _: None):
            os.kill(os.getpid(), signal.SIGHUP)
        assert (stop.wish, signal.getsignal(signal.SIGHUP)) == (wish, before)
    finally:
        signal.signal(signal.SIGHUP, outside)
