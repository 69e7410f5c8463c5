"""Words of trials and researchers that would steer a terminal stay words, wherever a command prints them."""

from __future__ import annotations

from typing import Any

from autoresearch.core.cli import ablate, adopt, scale, train
from autoresearch.core.cli.context import Settings
from autoresearch.core.cli.run import dry
from autoresearch.core.trial.request import TrialResult

HOSTILE = "a\x1b]0;mine\x07 change\x1b[2J\n\u202egnp"


def harmless(text: str) -> bool:
    return "change" in text and all(char.isprintable() or char in "\n\t" for char in text)


def test_a_dry_run_shows_prompts_edits_and_ideas_as_text(capsys: Any) -> None:
    known = {"tag": "t", "new": True, "backend": "null", "preset": "demo", "device": "d", "corpus": "stdlib"}
    known |= {"train_seconds": 2.0, "experiments": 0, "researcher": "tuner", "model": "m", "tokens": 3}
    estimate = dict.fromkeys(("experiments", "hours", "usd_per_proposal", "max_usd"))
    record = {**known, "estimate": estimate | {"trial_seconds": 2.0, "measured": False, "usd_at_most": 0.0}}
    dry.show({**record, "messages": None, "hypothesis": HOSTILE, "diff": f"+{HOSTILE}"})
    assert harmless(capsys.readouterr().out)
    dry.show({**record, "messages": [{"role": "user", "content": HOSTILE}]})
    assert harmless(capsys.readouterr().out)


def test_an_ablation_shows_descriptions_as_text(capsys: Any) -> None:
    row = {"experiment": 1, "description": HOSTILE, "verdict": "earns", "delta": None, "repaired": False}
    ablate.show(Settings(), {"changes": [{**row, "with_later": []}], "path": None, "seeds": 2})
    assert harmless(capsys.readouterr().out)


def test_a_condition_that_failed_is_one_line_of_text() -> None:
    row = {"axis": "budget", "factor": 1.0, "train_seconds": 2.0, "delta": None, "failed": HOSTILE}
    _, line = scale.table({"conditions": [row]})
    assert harmless(line) and "\n" not in line


def test_a_trial_shows_its_reason_and_its_device_as_text() -> None:
    result = TrialResult(status="crash", reason=HOSTILE, seed=0, backend="null", preset="demo", device=HOSTILE)
    assert harmless(train.summary(result))
    assert harmless(adopt.summary(result, adopt.verdict_of(result)))
