"""The person's own commands on keeps and at the end."""

from __future__ import annotations

import subprocess
import time

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.run.hooks import HookOptions, RunHooks, run_command
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture
def run(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        yield run


def go(run, options, *widths):
    said = []
    with RunHooks(options, run, said.append) as hooks:
        Loop(run, Widths(*widths), Greedy(), Scripted(), limits=Limits(len(widths)), on_decided=hooks.decided).go()
    return said


def test_a_keep_and_the_end_are_told_with_what_is_known_of_them(run, tmp_path):
    told = tmp_path / "told"
    line = f'echo "$AR_EVENT $AR_EVENT_TAG $AR_EVENT_EXPERIMENT $AR_EVENT_VAL_BPB $AR_EVENT_STATE" >> {told}'
    assert go(run, HookOptions(on_keep=line, on_end=line), 9, 12, 8) == []
    assert told.read_text().splitlines() == [
        "keep first 1 0.9 ",
        "keep first 3 0.8 ",
        "end first   finished",
    ]


def test_a_command_that_fails_is_said_once_with_its_last_words(run):
    said = go(run, HookOptions(on_keep="echo oh no >&2; exit 7"), 9, 8, 7)
    assert said == ["--on-keep: ended with exit code 7: oh no"]


def test_a_model_s_words_reach_a_command_as_words(run, tmp_path):
    class Hostile(Widths):
        def propose(self, history):
            import dataclasses

            return dataclasses.replace(super().propose(history), hypothesis=f"$(touch {tmp_path}/owned)\x1b[2J`id`")

    told = tmp_path / "told"
    with RunHooks(HookOptions(on_keep=f'printf "%s" "$AR_EVENT_DESCRIPTION" > {told}'), run, print) as hooks:
        Loop(run, Hostile(9), Greedy(), Scripted(), limits=Limits(1), on_decided=hooks.decided).go()
    assert told.read_text() == f"$(touch {tmp_path}/owned) [2J`id`"
    assert not (tmp_path / "owned").exists()


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path):
    mark = f"sleep 61{time.time_ns() % 10000:04}"
    assert run_command(f"{mark} & {mark}", {"PATH": "/usr/bin:/bin"}, 0.5) == "has not ended after 0.5 s and was killed"
    time.sleep(0.2)
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_command_sees_no_keys_but_those_that_are_named(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hush")
    monkeypatch.setenv("CHAT_WEBHOOK", "asked for")
    told = tmp_path / "told"
    line = f'echo "[$OPENAI_API_KEY] $CHAT_WEBHOOK $AR_EVENT" > {told}'
    go(run, HookOptions(on_end=line, hook_env=("CHAT_WEBHOOK",)), 9)
    assert told.read_text() == "[] asked for end\n"
