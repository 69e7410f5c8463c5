"""`--require-isolation` refuses before anything is prepared or run."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from autoresearch.core.cli import checks
from autoresearch.core.cli.main import cli
from autoresearch.core.trial.sandbox import host_paths, levels, sealing, system_calls
from autoresearch.core.trial.sandbox.levels import LevelStatus


@pytest.mark.parametrize("command", ["train", "loop"])
def test_a_level_that_is_not_reached_here_is_refused(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    none = [LevelStatus("bubblewrap", False, "bwrap is not installed"), LevelStatus("process", True)]
    monkeypatch.setattr(levels, "levels", lambda: none)
    ended = CliRunner().invoke(cli, [command, "--require-isolation", "bubblewrap"])
    assert ended.exit_code == 3
    assert "bwrap is not installed" in ended.stderr


def status(level: str, why_not: str | None = None) -> LevelStatus:
    return LevelStatus(level, why_not is None, why_not)  # type: ignore[arg-type]  # the tests name real levels


@pytest.mark.parametrize(
    ("found", "finding", "detail", "fix"),
    [
        ([status("bubblewrap")], "pass", "bubblewrap", None),
        (
            [status("bubblewrap", "bwrap is not installed"), status("landlock")],
            "pass",
            "no files, no network",
            "apt install bubblewrap",
        ),
        ([status("bubblewrap", "it is Linux only"), status("seatbelt")], "pass", "no users' files", None),
        (
            [status("bubblewrap", "bwrap is not installed"), status("landlock", "it needs Linux 6.7")],
            "warn",
            "it needs Linux 6.7",
            "apt install bubblewrap",
        ),
    ],
)
def test_doctor_says_which_level_there_is_and_how_to_get_the_best(
    found: list[LevelStatus], finding: str, detail: str, fix: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "levels", lambda: [*found, status("process")])
    monkeypatch.setattr(system_calls, "why_unavailable", lambda: None)
    monkeypatch.setattr(sealing, "why_unsealed", lambda _: None)
    monkeypatch.setattr(checks.shutil, "which", lambda _: None)
    monkeypatch.setattr(checks.sys, "platform", "linux")
    answer = checks.check_isolation()
    assert answer.status == finding
    assert detail in answer.detail
    assert (fix is None and answer.fix is None) or fix in str(answer.fix)


def test_doctor_warns_where_system_calls_cannot_be_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "levels", lambda: [status("bubblewrap"), status("process")])
    monkeypatch.setattr(system_calls, "why_unavailable", lambda: "this kernel has no seccomp filters")
    answer = checks.check_isolation()
    assert (answer.status, "this kernel has no seccomp filters" in answer.detail) == ("warn", True)


@pytest.mark.parametrize(
    ("why", "cards", "finding", "words"),
    [
        ("this kernel has no ptrace", [], "warn", "looks up: this kernel has no ptrace"),
        (None, ["/dev/nvidia0"], "pass", "on a GPU a file that is scored can leave traces"),
        (None, [], "pass", "no other processes"),
    ],
)
def test_doctor_says_where_a_child_cannot_be_sealed(
    why: str | None, cards: list[str], finding: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "levels", lambda: [status("bubblewrap"), status("process")])
    monkeypatch.setattr(system_calls, "why_unavailable", lambda: None)
    monkeypatch.setattr(sealing, "why_unsealed", lambda _: why)
    monkeypatch.setattr(host_paths, "nvidia_cards", lambda: cards)
    monkeypatch.setattr(checks.sys, "platform", "linux")
    answer = checks.check_isolation()
    assert (answer.status, words in answer.detail) == (finding, True)


def test_doctor_warns_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert (checks.check_user().status, "you are root" in checks.check_user().detail) == ("warn", True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert checks.check_user().status == "pass"


def test_doctor_tells_a_machine_with_bwrap_and_no_namespaces_what_to_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [status("bubblewrap", "bwrap may not make namespaces here"), status("landlock"), status("process")]
    monkeypatch.setattr(levels, "levels", lambda: found)
    monkeypatch.setattr(sealing, "why_unsealed", lambda _: None)
    monkeypatch.setattr(checks.shutil, "which", lambda _: "/usr/bin/bwrap")
    assert "user namespaces" in str(checks.check_isolation().fix)
