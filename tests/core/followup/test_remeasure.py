"""Trials of a finished run's files: in turn, and once more when the machine was busy."""

from __future__ import annotations

from autoresearch.core.followup import remeasure
from autoresearch.core.trial.request import TrialResult


def test_a_trial_far_slower_than_its_sources_others_is_run_once_more_and_only_then_believed(tmp_path, monkeypatch):
    told, ran = [], []

    def trial(request, **_):
        ran.append(request.source)
        speed = 20.0 if len(ran) in (2, 4, 5) else 100.0
        return TrialResult(
            status="ok",
            seed=request.seed,
            backend="null",
            preset="demo",
            val_bpb=float(len(ran)),
            tokens_per_second=speed,
        )

    monkeypatch.setattr(remeasure, "run_trial", trial)
    config = {"backend": "null", "preset": "demo", "prepared": "", "eval_seq_len": 256, "score_rows": 32}
    remeasurer = remeasure.Remeasurer(
        {**config, "train_seconds": 1.0, "startup_seconds": 1.0},
        tmp_path,
        "test",
        0,
        say=told.append,
        usual={"a": [100.0]},
    )
    assert remeasurer.measure("1-0-1", "a", 0) == 1.0
    assert remeasurer.measure("1-0-2", "a", 1) == 3.0  # the second trial was slow, so there was a third
    assert remeasurer.measure("1-1-1", "b", 0) == 5.0  # slow twice: a slow file, not a slow machine
    assert [line.split(":")[0] for line in told] == ["1-0-2 is run once more", "1-1-1 is run once more"]
    assert ran == ["a", "a", "a", "b", "b"]


def test_a_call_that_was_interrupted_takes_over_the_trials_of_this_machine_alone(tmp_path, monkeypatch):
    ran, notes = [], []

    def trial(request, **_):
        ran.append(request.folder.name)
        return TrialResult(
            status="ok", seed=request.seed, backend="null", preset="demo", val_bpb=float(len(ran)), machine="here"
        )

    monkeypatch.setattr(remeasure, "run_trial", trial)
    config = {"backend": "null", "preset": "demo", "prepared": "", "eval_seq_len": 256, "score_rows": 32, "seed": 7}
    config |= {"train_seconds": 1.0, "startup_seconds": 1.0}

    class Notes:
        def events(self, _kind):
            return notes

        def note(self, _kind, _experiment, payload):
            notes.append(payload)

    def remeasurer(machine):
        call = remeasure.Call.of(Notes(), "scale", 2, lambda: machine)
        return remeasure.Remeasurer(config, tmp_path, "test", 0, call=call)

    assert remeasurer("here").measure("a", "source a", 1) == 1.0
    again = remeasurer("here")
    assert (again.measure("a", "source a", 1), ran) == (1.0, ["a"])
    assert again.measure("a", "another source", 1) == 2.0
    assert remeasurer("elsewhere").measure("a", "source a", 1) == 3.0
    other = remeasure.Call.of(Notes(), "scale", 3, lambda: "here")
    assert not other.done
