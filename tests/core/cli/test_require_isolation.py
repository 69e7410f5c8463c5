"""`--require-isolation` refuses before anything is prepared or run."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from autoresearch.core.cli.main import cli
from autoresearch.core.trial import sandbox
from autoresearch.core.trial.sandbox import LevelStatus


@pytest.mark.parametrize("command", ["train", "loop"])
def test_a_level_that_is_not_reached_here_is_refused(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    none = [LevelStatus("bubblewrap", False, "bwrap is not installed"), LevelStatus("process", True)]
    monkeypatch.setattr(sandbox, "levels", lambda: none)
    ended = CliRunner().invoke(cli, [command, "--require-isolation", "bubblewrap"])
    assert ended.exit_code == 3
    assert "bwrap is not installed" in ended.stderr
