"""What researchers see of the trials: raw scores, paired differences, and what a kept change is worth now."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Researcher
from autoresearch.core.run.history import own_profile, profile_folder
from autoresearch.core.run.loop import Limits, Loop


class Reader(Widths):
    """Proposes widths, and keeps every history that it was shown."""

    def __init__(self, *widths):
        super().__init__(*widths)
        self.seen = []

    def propose(self, history):
        self.seen.append(history)
        return super().propose(history)


def histories(tmp_path, judge):
    config = replace(CONFIG, judge=judge.name)
    with open_run(make_workspace(tmp_path / "w"), config=config) as run:
        researcher = Reader(9, 12, 8, 7)
        Loop(run, researcher, judge, Scripted(), limits=Limits(4)).go()
        return [*researcher.seen, run.history("p")]


@pytest.fixture
def seen(tmp_path):
    return histories(tmp_path, Greedy())


def test_every_attempt_has_its_trials_and_what_it_was_compared_with(seen):
    last = {one.experiment: one for one in seen[-1].attempts}
    assert [(one.val_bpb, one.tokens) for one in last[2].trials] == [(1.2, 1000)]
    assert last[2].raw.value == pytest.approx(0.3) and last[2].raw.against == 1  # 12 against 9
    assert [one.val_bpb for one in last[2].raw.trials] == [0.9]
    assert last[0].raw is None and last[2].raw.error is None  # this judge learns no noise


def test_only_the_changes_that_the_incumbent_consists_of_have_a_standing(seen):
    last = {one.experiment: one for one in seen[-1].attempts}
    assert {number for number, one in last.items() if one.standing is not None} == {1, 3, 4}
    assert (last[4].standing.value, last[4].standing.against) == (pytest.approx(-0.1), 3)


@pytest.mark.parametrize("judge", [Greedy(), Racing()], ids=lambda judge: judge.name)
def test_what_was_said_of_an_experiment_stays_as_it_was(tmp_path, judge):
    seen = histories(tmp_path, judge)
    assert judge.name == "greedy" or seen[-1].attempts[2].raw.error > 0
    for earlier, later in itertools.pairwise(seen):
        for one, same in zip(earlier.attempts, later.attempts, strict=False):
            assert (one.trials, one.raw, one.source) == (same.trials, same.raw, same.source)


def test_nobody_is_asked_before_the_baseline_is_decided(seen):
    assert [one.experiment for one in seen[0].attempts] == [0]
    assert all(one.trials for history in seen for one in history.attempts)


def test_researchers_that_read_no_profiles_cost_no_device_time():
    assert not Researcher.reads_profiles and not Widths(1).reads_profiles


def test_the_loops_own_profile_says_whose_it_is(tmp_path):
    assert own_profile(tmp_path, 3) == ""
    for number in (0, 2):
        folder = profile_folder(tmp_path, number)
        folder.mkdir(parents=True)
        (folder / "profile.md").write_text(f"# Where the time goes: {number}\n")
    profile_folder(tmp_path, 10).mkdir()  # one that failed
    assert own_profile(tmp_path, 2).startswith("Measured by the loop in experiment 2's file.\n")
    assert "which had about the same shape as the best file now" in own_profile(tmp_path, 3)
