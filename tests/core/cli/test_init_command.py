import errno
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from autoresearch.backends import names as backend_names
from autoresearch.core.cli import init as init_command
from autoresearch.core.cli import main
from autoresearch.core.cli.commands import COMMANDS


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_a_full_disk_is_said_of_the_folder_where_the_system_names_no_file(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main.run(["init", str(tmp_path / "w")]) == 2
    assert f"ar: {tmp_path / 'w'} cannot be written: No space left on device. Fix: " in capsys.readouterr().err


def test_a_new_workspace_is_a_clean_repository_with_everything_a_loop_needs(tmp_path, capsys):
    folder = tmp_path / "deep" / "work"
    assert main.run(["--json", "init", str(folder)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["workspace"] == str(folder)
    assert shown["commit"] == git(folder, "rev-parse", "HEAD")
    assert "program.md" in shown["files"]
    for name in backend_names():
        assert (folder / "backends" / name / "train.py").read_text(encoding="utf-8").count("def logits(") == 1
    assert git(folder, "status", "--porcelain") == ""
    (folder / "runs").mkdir()
    (folder / "runs" / "x").write_text("x")
    assert git(folder, "status", "--porcelain") == ""


def test_a_workspace_is_made_without_a_git_identity(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    assert main.run(["init", str(tmp_path / "work")]) == 0
    assert git(tmp_path / "work", "log", "--format=%an") == "autoresearch"


def test_a_workspace_is_committed_whole_whatever_a_person_has_set_for_own_commits(tmp_path, monkeypatch):
    hook = tmp_path / "hooks" / "prepare-commit-msg"  # `--no-verify` leaves this one running
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (tmp_path / "ignored").write_text("*.py\n")
    config = tmp_path / "gitconfig"
    config.write_text(
        "[commit]\ngpgsign = true\n[gpg]\nprogram = false\n"
        f"[core]\nhooksPath = {hook.parent}\nexcludesFile = {tmp_path / 'ignored'}\nautocrlf = true\nsafecrlf = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert main.run(["init", str(tmp_path / "work")]) == 0
    assert "backends/null/train.py" in git(tmp_path / "work", "ls-files").splitlines()
    assert git(tmp_path / "work", "status", "--porcelain") == ""


@pytest.mark.parametrize("there", [False, True])
def test_a_workspace_that_git_cannot_make_leaves_nothing_behind(tmp_path, monkeypatch, capsys, there):
    folder = tmp_path / "work"
    if there:
        folder.mkdir()
    (tmp_path / "gitconfig").write_text("[broken\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert main.run(["init", str(folder)]) == 1
    assert "bad config line 1" in capsys.readouterr().err
    assert list(folder.iterdir()) == [] if there else not folder.exists()
    monkeypatch.delenv("GIT_CONFIG_GLOBAL")
    assert main.run(["init", str(folder)]) == 0


def test_an_empty_folder_may_become_a_workspace(tmp_path):
    assert main.run(["init", str(tmp_path)]) == 0
    assert (tmp_path / "program.md").is_file()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden"])
def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main.run(["init", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_the_way_is_refused(tmp_path, capsys):
    (tmp_path / "work").write_text("mine")
    assert main.run(["init", str(tmp_path / "work")]) == 2
    assert main.run(["init", str(tmp_path / "work" / "below")]) == 2
    assert (tmp_path / "work").read_text() == "mine"


@pytest.mark.parametrize("agent", ["claude", "codex", "cursor", "generic"])
def test_a_workspace_for_an_agent_tells_it_how_to_research_and_where_the_server_is(tmp_path, capsys, agent):
    folder = tmp_path / "work"
    assert main.run(["--json", "init", str(folder), "--agent", agent]) == 0
    written = json.loads(capsys.readouterr().out)["files"]
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in written}
    assert "ar submit try.py" in texts["AGENTS.md"] and "program.md" in texts["AGENTS.md"]
    assert any("mcp" in text and '"ar"' in text for text in texts.values())
    assert git(folder, "status", "--porcelain") == ""
    (folder / "try.py").write_text("x")
    assert git(folder, "status", "--porcelain") == ""
    for name, text in texts.items():
        if name.endswith(".json"):
            json.loads(text)


def test_the_commands_of_the_agents_page_exist():
    page = init_command.agent_files("generic")["AGENTS.md"]
    named = set(re.findall(r"`?ar ([a-z]+)", page)) - {"does"}
    assert {"brief", "submit", "result"} <= named <= set(COMMANDS)


def test_a_workspace_that_is_there_gets_an_agents_files_once(tmp_path, capsys):
    assert main.run(["init", str(tmp_path)]) == 0
    assert main.run(["init", str(tmp_path), "--agent", "codex"]) == 0
    (tmp_path / "AGENTS.md").write_text("mine")
    assert main.run(["init", str(tmp_path), "--agent", "generic"]) == 2
    assert "has AGENTS.md already" in capsys.readouterr().err
    assert (tmp_path / "AGENTS.md").read_text() == "mine" and not (tmp_path / "mcp.json").exists()
    assert main.run(["init", str(tmp_path), "--agent", "gpt"]) == 2


def test_the_next_step_can_be_pasted_whatever_the_folder_is_called(tmp_path, capsys):
    assert main.run(["init", str(tmp_path / "my night")]) == 0
    assert f"next: cd '{tmp_path}/my night' && ar doctor" in capsys.readouterr().err


def test_the_next_step_is_on_the_backend_that_was_asked_for(tmp_path, capsys):
    assert main.run(["--backend", "null", "init", str(tmp_path / "w")]) == 0
    assert "&& ar --backend null doctor && ar --backend null loop -n 5" in capsys.readouterr().err
