"""Short trials in the loop: what they let go, and that none of them is ever a score."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from loop_fixtures import CONFIG, PRESET, open_run
from side_by_side import Edits, Field, numbers, two_constants

from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.run.options import FleetOptions, RunOverrides
from autoresearch.core.cli.run.resolve import Devices, configure, screening_device
from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.fleet.cluster import NodeResources
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.report.document.gather import gather
from autoresearch.core.report.document.page import html_page
from autoresearch.core.run import screens
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.replay import decide_again
from autoresearch.core.run.scheduler import ScreeningDevices
from autoresearch.core.run.short_trials import SCREEN, SCREENED, screen_lines, screen_report
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import SHORT_TRIAL
from autoresearch.core.trial.request import TrialResult

OPTIONS = JudgeOptions(preset="h100", screen_seconds=0.5)
RACING = replace(CONFIG, judge="racing", preset="h100", judge_options=OPTIONS)
BETTER, WORSE = {"WIDTH": 8}, {"WIDTH": 40}


@pytest.fixture
def workspace(tmp_path):
    return two_constants(tmp_path / "w")


@pytest.fixture(autouse=True)
def never_anyway(monkeypatch):
    """No change that is let go is drawn for a full trial, unless a test says so."""
    monkeypatch.setattr(screens, "measured_anyway", lambda *_: (False, 0.125))


class Short(Field):
    """Devices whose short trials score a bpb more than full ones, and where the short trial of a source may fail."""

    def __init__(self, *arguments, fails=(), lies=()):
        super().__init__(*arguments)
        self.fails, self.lies = fails, lies

    def submit(self, request, observer=None):
        handle, short = super().submit(request, observer), request.budget.train_seconds == 0.5
        plain = handle.result

        def result(timeout=None):
            found, made = plain(timeout), numbers(request.source)
            if short and made in self.fails:
                return TrialResult(status="crash", reason="too short", seed=request.seed, backend="null", preset="demo")
            moved = 1.0 * short - (9.0 if short and made in self.lies else 0.0)
            return found.model_copy(update={"val_bpb": found.val_bpb + moved + request.seed % 7 * 1e-4})

        handle.result = result
        return handle

    def shorts(self):
        return [one for one in self.requests if one.budget.train_seconds == 0.5]


def go(workspace, executor, *changes, n=None):
    with open_run(workspace, config=RACING) as run:
        return Loop(
            run, Edits(*changes), Racing(OPTIONS), executor, limits=Limits(len(changes) if n is None else n)
        ).go()


def rows_of(workspace):
    with LedgerReader(workspace / "runs/t") as reader:
        return list(reader.experiments()), reader.every_trial(), reader.events(SCREENED), reader.events(SHORT_TRIAL)


def test_a_change_that_is_clearly_worse_in_a_short_trial_has_no_full_one_and_no_score(workspace):
    executor = Short(1)
    go(workspace, executor, WORSE)
    rows, trials, verdicts, shorts = rows_of(workspace)
    assert rows[1].status == "stopped" and rows[1].val_bpb is None and rows[1].estimate is None
    assert not any(one.subject == 1 for one in trials)
    assert "let go after a short trial: +3.00000 bpb against experiment 0 in 0.5 s of 2 s" in rows[1].reason
    assert "no score" in rows[1].reason
    assert [one["subject"] for one in shorts] == [0, 1] and verdicts[0]["passed"] is False
    assert rows[1].metrics["predicted_bpb"] == pytest.approx(rows[0].estimate + 3.0)
    assert {one.seed for one in executor.shorts()}.isdisjoint(one.seed for one in trials)
    assert not any(one.audit or one.keep_weights or one.stop for one in executor.shorts())


def test_a_change_that_looks_better_is_judged_by_its_full_trials_alone(workspace):
    go(workspace, Short(1), BETTER)
    rows, trials, verdicts, _ = rows_of(workspace)
    assert rows[1].status == "keep" and verdicts[0]["passed"] is True
    # Short trials score a whole bpb more: any of them among the scores would show.
    assert all(one.val_bpb < 3.1 for one in trials)
    assert rows[1].change == pytest.approx(-0.2, abs=0.01)
    with LedgerReader(workspace / "runs/t") as reader:
        assert decide_again(reader, rows[1]).describe().endswith("the same verdict and figures")


def test_a_short_trial_that_fails_or_flatters_decides_nothing(workspace):
    others = {"DEPTH": 10, "HEIGHT": 10}
    executor = Short(1, fails=(WORSE | others,), lies=({"WIDTH": 41} | others,))
    go(workspace, executor, WORSE, {"WIDTH": 41})
    rows, trials, verdicts, _ = rows_of(workspace)
    assert [one.status for one in rows[1:]] == ["discard", "discard"]
    assert [one["passed"] for one in verdicts] == [True, True] and verdicts[0]["short"] is None
    assert sum(one.subject == 1 for one in trials) == 1 and sum(one.subject == 2 for one in trials) == 1


def test_every_incumbent_is_measured_anew_in_short_and_its_own_screening_does_not_count(workspace):
    go(workspace, Short(1), BETTER, {"DEPTH": 40})
    _, _, verdicts, shorts = rows_of(workspace)
    assert [(one["against"], one["subject"]) for one in shorts] == [(0, 0), (0, 1), (1, 1), (1, 2)]
    assert shorts[1]["seed"] != shorts[2]["seed"] and verdicts[1]["against"] == 1


def test_a_change_that_removes_code_and_a_stack_are_not_screened(workspace):
    go(workspace, Short(3), {"WIDTH": 8}, {"DEPTH": 8}, {"HEIGHT": 8}, {"WIDTH": 50}, {"WIDTH": 51}, n=6)
    rows, _, verdicts, _ = rows_of(workspace)
    stacks = [row.number for row in rows if row.researcher == "stacks"]
    assert stacks and not {one["experiment"] for one in verdicts} & set(stacks)


def test_what_is_drawn_is_measured_in_full_all_the_same_and_teaches_the_rank_correlation(workspace, monkeypatch):
    monkeypatch.setattr(screens, "measured_anyway", lambda *_: (True, 0.25))
    go(workspace, Short(1), *({"WIDTH": width} for width in (40, 42, 44, 46, 48)))
    rows, _, verdicts, _ = rows_of(workspace)
    assert all(one["anyway"] == 0.25 and one["passed"] for one in verdicts)
    # Some are ended by the judge's own rule; none is let go by its short trial.
    assert all(row.val_bpb is not None for row in rows) and SCREEN not in rows[1].judged
    with LedgerReader(workspace / "runs/t") as reader:
        report = screen_report(reader)
        assert "above it, and drawn to be measured in full all the same (chance 25%)" in screen_lines(reader, 3)[0]
    assert report.agreement.rank == pytest.approx(1.0) and report.agreement.pairs == 5 and report.anyway == 5
    assert "rank correlation of short and full trials 1.00 (5 changes measured both ways)" in report.describe()


def test_a_loop_that_dies_between_any_two_steps_goes_on_with_the_same_short_trials(workspace, monkeypatch):
    class Death(BaseException):
        pass

    for method in ("start_short", "short_trial", "note", "decide"):
        deaths, plain = [], getattr(Ledger, method)

        def dies(self, *arguments, _kept=plain, _deaths=deaths, **named):
            found = _kept(self, *arguments, **named)
            if not _deaths and arguments[0] != "session":
                _deaths.append(arguments)
                raise Death
            return found

        monkeypatch.setattr(Ledger, method, dies)
        tag = method.replace("_", "-")
        executors = []
        for _ in range(3):
            executors.append(Short(1))
            with open_run(workspace, tag=tag, config=RACING) as run:
                try:
                    Loop(run, Edits(WORSE), Racing(OPTIONS), executors[-1], limits=Limits(1)).go()
                    break
                except Death:
                    continue
        monkeypatch.undo()
        monkeypatch.setattr(screens, "measured_anyway", lambda *_: (False, 0.125))
        with LedgerReader(workspace / "runs" / tag) as reader:
            assert deaths and reader.experiment(1).status == "stopped"
            assert [one["subject"] for one in reader.events(SHORT_TRIAL)] == [0, 1]
            assert len(reader.events(SCREENED)) == 1 and reader.verify().fault is None


def test_many_changes_at_once_share_one_short_trial_of_the_best_file(workspace):
    executor = Short(4)
    go(workspace, executor, *({"WIDTH": width} for width in range(40, 48)))
    rows, _, verdicts, shorts = rows_of(workspace)
    assert all(row.status == "stopped" for row in rows[1:]) and len(verdicts) == 8
    assert sum(one["subject"] == 0 for one in shorts) == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"screen_seconds": 20.0, "budget": 20.0}, "20 is not shorter than a trial's budget of 20 s"),
        ({"screen_seconds": 1.0, "judge": "greedy"}, "an option of the racing judge, and the judge is greedy"),
    ],
)
def test_short_trials_that_cannot_be_are_refused_before_text_is_prepared(asked, words):
    with pytest.raises(UsageError, match=words):
        configure(None, "null", PRESET, None, RunOverrides(**asked), None)


def test_a_resumed_run_keeps_its_short_trials_and_an_older_run_has_none(workspace):
    assert JudgeOptions.choose("demo", {}, RACING.plain()).screen_seconds == 0.5
    assert JudgeOptions.choose("demo", {}, {"judge": "racing"}).screen_seconds == 0.0
    go(workspace, Short(1), n=0)
    with pytest.raises(UsageError, match=r"started with screen_seconds = 0.5"):
        open_run(workspace, config=replace(RACING, judge_options=replace(OPTIONS, screen_seconds=1.0)))


def test_results_status_and_the_report_tell_of_short_trials(workspace, capfd):
    go(workspace, Short(1), WORSE)
    assert ar(["--workspace", str(workspace), "results", "--why", "1"]) == 0
    why = capfd.readouterr().out
    assert "experiment 1: stopped: let go after a short trial" in why and "the cut is" in why and "it was let go" in why
    assert "let go by its short trial, which the judge has no part in" in why
    for command in (["results", "--why", "0"], ["status"], ["report", "--markdown"]):
        assert ar(["--workspace", str(workspace), *command]) == 0
        assert "hort trials of 0.5 s: 1 of 1 changes let go" in capfd.readouterr().out, command
    with LedgerReader(workspace / "runs/t") as reader:
        page = html_page(gather(reader), None)
    assert "<dt>Short trials</dt><dd>of 0.5 s: 1 of 1 changes let go" in page


class Cheap(Field):
    """Devices of another kind, where everything scores five bpb more, and DEPTH helps in the place of hurting."""

    def submit(self, request, observer=None):
        handle = super().submit(request, observer)
        plain = handle.result

        def result(timeout=None):
            found, made = plain(timeout), numbers(request.source)
            moved = 5.0 - 0.2 * (made["DEPTH"] - 10) + request.seed % 7 * 1e-4
            return found.model_copy(update={"val_bpb": found.val_bpb + moved})

        handle.result = result
        return handle


OTHER = replace(RACING, judge_options=JudgeOptions(preset="h100", screen_on="cheap"))


def on_two_kinds(workspace, cheap, dear, *changes, n):
    with open_run(workspace, config=OTHER) as run:
        screening = ScreeningDevices(cheap, "cheap card", "cuda")
        judge = Racing(OTHER.judge_options)
        return Loop(run, Edits(*changes), judge, dear, limits=Limits(n), screening=screening).go()


def test_changes_are_tried_on_one_kind_of_device_and_decided_on_another(workspace):
    cheap, dear = Cheap(2), Field(1)
    on_two_kinds(workspace, cheap, dear, WORSE, {"DEPTH": 40}, BETTER, n=3)
    rows, trials, verdicts, shorts = rows_of(workspace)
    assert [row.status for row in rows[1:]] == ["stopped", "discard", "keep"]
    assert "in 2 s of 2 s on cheap card" in rows[1].reason
    assert {one["machine"] for one in shorts} == {"cheap card"} == {one["machine"] for one in verdicts}
    # No score of the cheap kind is among those that decide.
    assert all(one.val_bpb < 10 for one in trials) and cheap.most == 2 and dear.most == 1
    assert {one.device_kind for one in cheap.requests} == {"cuda"}
    assert 40 not in {numbers(one.source)["WIDTH"] for one in dear.requests}


def test_the_cheap_kind_goes_on_while_the_dear_one_is_busy_and_not_without_end(workspace):
    class Slow(Field):
        def poll(self, handle):
            return super().poll(handle) if len(cheap.requests) >= 3 or len(self.requests) < 3 else False

    cheap, dear = Cheap(1), Slow(1)
    on_two_kinds(workspace, cheap, dear, *({"DEPTH": 11 + i} for i in range(12)), n=8)
    rows, *_ = rows_of(workspace)
    assert len(rows) == 9 and all(row.state == "decided" for row in rows)


def test_a_category_that_does_not_carry_over_is_let_through(workspace, monkeypatch):
    """The other kind of device tells the order of one category, and nothing of the other."""
    monkeypatch.setattr(screens, "measured_anyway", lambda *_: (True, 0.5))
    held = [{"WIDTH": 20 + 3 * i} for i in range(8)]
    lost = [{"DEPTH": 20 + 3 * i} for i in range(8)]
    both = [one for pair in zip(held, lost, strict=True) for one in pair]

    class Named(Edits):
        def propose(self, history):
            found = super().propose(history)
            return replace(found, category="depth" if "DEPTH" in found.hypothesis else "width")

    with open_run(workspace, config=OTHER) as run:
        screening = ScreeningDevices(Cheap(1), "cheap card")
        Loop(run, Named(*both), Racing(OTHER.judge_options), Field(1), limits=Limits(16), screening=screening).go()
    _, _, verdicts, _ = rows_of(workspace)
    last = {one["category"]: one["believed"] for one in verdicts if "believed" in one}
    assert last["width"] > last["depth"] + 0.2


def _survey(*names):
    return {
        str(i): SimpleNamespace(
            device=SimpleNamespace(description=lambda name=name: name, kind="cuda"),
            resources=NodeResources(8, 1, 1e9),
            description=lambda name=name: name,
        )
        for i, name in enumerate(names)
    }


def test_words_of_a_kind_are_looked_up_and_wrong_ones_are_refused_with_what_there_is():
    found = _survey("NVIDIA H100 torch 2", "NVIDIA A100 torch 2", "NVIDIA A100 torch 2")
    assert screening_device(found, "a100", "NVIDIA H100 torch 2").description() == "NVIDIA A100 torch 2"
    assert screening_device(found, "nvidia", "NVIDIA H100 torch 2").description() == "NVIDIA A100 torch 2"
    with pytest.raises(UsageError, match=r"names NVIDIA H100 torch 2, on which the run decides.*NVIDIA A100"):
        screening_device(found, "H100", "NVIDIA H100 torch 2")
    with pytest.raises(PrerequisiteError, match=r"no node of the fleet runs trials on 'L4'.*NVIDIA A100.*NVIDIA H100"):
        screening_device(found, "L4", "NVIDIA H100 torch 2")


def test_a_run_on_two_kinds_is_not_resumed_without_its_cluster():
    with pytest.raises(UsageError, match="this run tries its changes on 'A100' first"):
        Devices(FleetOptions(), print).screening("A100", None, "null", "x", None)
