"""A judge's settings: what a person asks for comes first, then what the run was started with, then the default."""

from __future__ import annotations

from loop_fixtures import CONFIG

from autoresearch.core.judge.options import JudgeOptions


def test_a_new_run_has_the_defaults_and_what_was_asked_for():
    assert JudgeOptions.choose("h100", {"calibrate": None, "seed": 3}, {}) == JudgeOptions("h100", 2)
    assert JudgeOptions.choose("h100", {"calibrate": 5}, {}) == JudgeOptions("h100", 5)


def test_a_run_goes_on_with_its_own_and_one_from_before_the_setting_with_what_it_did_then():
    assert JudgeOptions.choose("cpu", {}, {"calibrate": 4}).calibrate == 4
    assert JudgeOptions.choose("cpu", {}, {"judge": "racing"}).calibrate == 1
    assert JudgeOptions.choose("cpu", {"calibrate": 3}, {"calibrate": 4}).calibrate == 3


def test_every_setting_stands_in_a_runs_configuration_under_its_own_name():
    plain = CONFIG.plain()
    assert {name: plain[name] for name in JudgeOptions.settings()} == {
        "calibrate": 2,
        "stop_early": "on",
        "stacks": "on",
        "screen_seconds": 0.0,
        "screen_on": "",
    }
    assert plain["preset"] == CONFIG.preset
    assert "judge_options" not in plain
