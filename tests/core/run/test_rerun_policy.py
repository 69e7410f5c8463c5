"""Trials that say nothing about their source are run again, not judged."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from loop_fixtures import CONFIG, TRAIN, Scripted, ScriptedHandle, Widths, make_workspace, open_run, width_of

from autoresearch.core.awake import awake
from autoresearch.core.errors import ArError, PrerequisiteError
from autoresearch.core.events import Repeated, SeedIgnored
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.fleet.slots import Slot
from autoresearch.core.judge.decision import Demotion, RunTrial
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.racing import Racing
from autoresearch.core.run import scheduler
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.rerun_policy import (
    DeviceWatch,
    asleep_seconds,
    machine_moved,
    pace,
    same_shape,
    slot_pace,
    slow,
    slower_file,
    speeds,
    spoiled,
)
from autoresearch.core.store.git import Repository
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trial.context import gone
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.training import ANOTHER_KIND, SLOW_START


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def result(speed, status="ok"):
    return TrialResult(status=status, seed=0, backend="null", preset="demo", tokens_per_second=speed)


def trials(*values):
    return speeds(SimpleNamespace(result={"tokens_per_second": value}) for value in (*values, None))


def test_a_trial_far_below_the_runs_usual_speed_is_run_once_more_and_then_believed():
    common = {"slept": 0.0, "incumbent": trials(100.0), "repeated": False}
    assert "tokens/s" in spoiled(result(50.0), same=trials(100.0, 90.0, 110.0), **common)
    assert spoiled(result(70.0), same=trials(100.0), **common) is None
    assert spoiled(result(50.0), same=[], **common) is None  # a larger model is slower by right
    assert spoiled(result(20.0), same=[], **common) is not None
    assert spoiled(result(50.0), same=trials(100.0), **{**common, "repeated": True}) is None
    assert spoiled(result(None, "crash"), same=trials(100.0), **common) is None
    assert "slept for 60 s" in spoiled(result(100.0), same=[], **{**common, "slept": 60.0})


def test_fewer_batches_with_fewer_processors_are_the_machines_doing_and_either_alone_is_not():
    def seen(batches, cpu_seconds, device_kind="cpu"):
        more = {"batches": batches, "cpu_seconds": cpu_seconds, "train_seconds": 100.0, "device_kind": device_kind}
        return result(None).model_copy(update=more)

    usual = pace([seen(100, 98.0).model_dump(), seen(95, 96.0).model_dump()])
    assert "got 0.70 processors" in slow(seen(64, 70.0), usual=usual)
    assert slow(seen(90, 70.0), usual=usual) is None
    assert slow(seen(64, 97.0), usual=usual) is None
    assert slow(seen(64, 70.0, "cuda"), usual=usual) is None


def test_a_trial_that_trained_and_was_not_scored_in_time_is_run_once_more():
    common = {"slept": 0.0, "same": [], "incumbent": []}
    late = result(100.0, "timeout").model_copy(update={"reason": "score took longer than 3 s", "eval_seconds": 12.0})
    said = spoiled(late, **common, repeated=False)
    assert said == "score took longer than 3 s: the machine may have been busy"
    assert spoiled(late, **common, repeated=True) is None
    endless = late.model_copy(update={"eval_seconds": None})  # it never came to be scored
    assert spoiled(endless, **common, repeated=False) is None


def test_the_clock_of_sleep_stands_still_while_the_machine_is_awake():
    assert asleep_seconds() == pytest.approx(asleep_seconds(), abs=0.5)


def test_a_sleep_in_a_trial_has_it_run_again_under_its_number(workspace, monkeypatch):
    clock = {"asleep": 0.0}
    monkeypatch.setattr(scheduler, "asleep_seconds", lambda: clock["asleep"])

    def during(request):
        if width_of(request.source) == 9 and len(executor.requests) == 2:
            clock["asleep"] += 3600.0

    executor, events = Scripted(during=during), []
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), executor, limits=Limits(1), observer=events.append).go()
        assert [(trial.k, trial.starts) for trial in run.ledger.trials(experiment=1)] == [(1, 2)]
        assert len(run.ledger.events("trial repeated")) == 1
    assert [width_of(request.source) for request in executor.requests] == [10, 9, 9]
    assert "slept for 3600 s" in next(event.reason for event in events if isinstance(event, Repeated))


def test_a_trial_that_fails_on_a_full_disk_is_not_held_against_its_source(workspace, monkeypatch):
    monkeypatch.setattr(scheduler, "disk_is_full", lambda _: True)
    with open_run(workspace) as run, pytest.raises(ArError, match=r"is full\. Fix: free some space"):
        Loop(run, Widths(9), Greedy(), Scripted({9: "crash"}), limits=Limits(1)).go()
    monkeypatch.undo()
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
        assert run.ledger.experiment(1).status == "keep"


def test_an_incumbent_that_does_not_hold_gives_its_place_back_and_everything_follows(workspace):
    class Demotes(Greedy):
        def consider(self, evidence):
            if evidence.candidate.experiment == 2 and evidence.incumbent.experiment == 1:
                return Demotion(1, "demoted: it was luck")
            return super().consider(evidence)

    with open_run(workspace) as run:
        Loop(run, Widths(9, 12), Demotes(), Scripted(), limits=Limits(2)).go()
        commits = [row.commit for row in run.ledger.experiments()]
        assert run.ledger.run().incumbent == 0
    with LedgerReader(workspace / "runs/t") as reader:
        demoted = reader.experiment(1)
        assert (demoted.status, demoted.reason.partition(";")[0]) == ("discard", "demoted: it was luck")
    assert Repository.open(workspace).ref("refs/heads/autoresearch/t") == commits[0]
    assert re.search(r"WIDTH = 10\b", (workspace / "runs/t/best_train.py").read_text())
    with open_run(workspace) as run:  # and it is taken up again as it stands
        assert [attempt.status for attempt in run.attempts] == ["keep", "discard", "discard"]


def test_on_macos_the_loop_keeps_the_machine_awake_and_lets_it_sleep_afterwards(tmp_path, monkeypatch):
    said = tmp_path / "arguments"
    fake = tmp_path / "caffeinate"
    fake.write_text(f'#!/bin/sh\necho "$@" > {said}\nexec sleep 60\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with awake():
        for _ in range(500):
            if said.exists() and said.read_text():
                break
            __import__("time").sleep(0.01)
    assert said.read_text().split() == ["-i", "-m", "-w", str(os.getpid())]


class Probe:
    """A device that is there or not, as often as the list says; then as its last entry."""

    def __init__(self, *there):
        self.there, self.looks = list(there), 0

    def __call__(self, backend, environment=()):
        self.looks += 1
        if not (self.there.pop(0) if len(self.there) > 1 else self.there[0]):
            raise PrerequisiteError("the null backend does not start: no device.")
        return SimpleNamespace(description=lambda: "A")


def crash(reason, status="crash"):
    return TrialResult(status=status, seed=0, backend="null", preset="demo", reason=reason)


def suspect(probe, result, repeated=False, stopped=lambda: False):
    watch = DeviceWatch("null", "A", probe, pauses=(0.01, 0.01))
    return watch.lost(result, stopped=stopped) or watch.suspect(result, repeated=repeated)


def test_a_device_that_comes_back_has_the_trial_run_again_and_one_that_stays_away_ends_the_loop():
    assert suspect(Probe(True), crash("KeyError: 'x'")) is None
    assert "is back" in suspect(Probe(False, False, True), crash("KeyError: 'x'"))
    with pytest.raises(PrerequisiteError, match=r"the device is gone: .* Fix: bring it back") as gone:
        suspect(Probe(False), crash("KeyError: 'x'"))
    assert gone.value.exit_code == 3
    other = DeviceWatch("null", "B", Probe(True), pauses=())
    with pytest.raises(PrerequisiteError, match="found A in place of B"):
        other.lost(crash("anything", "timeout"), stopped=lambda: False)


def test_the_device_that_the_trial_ran_on_is_looked_at_and_given_up_while_others_are_left():
    looked = []

    def probe(backend, environment):
        looked.append(dict(environment)["CUDA_VISIBLE_DEVICES"])
        if looked[-1] == "b":
            raise PrerequisiteError("no device.")
        return SimpleNamespace(description=lambda: "A")

    executor = LocalExecutor([Slot(f"cuda-{name}", f"card {name}", (("CUDA_VISIBLE_DEVICES", name),)) for name in "ab"])
    watch = DeviceWatch("null", "A", probe, pauses=(0.01,), devices=executor)

    def lost(card):
        return watch.lost(crash("x").model_copy(update={"place": card}), stopped=lambda: False)

    try:
        assert lost("card a") is None
        assert lost("card b") == "card b is gone (no device), and gets no further trial"
        assert (looked, executor.capacity()) == (["a", "b", "b"], 1)
        assert "card b is gone" in lost("card b"), "of another trial that had run there"
    finally:
        executor.close()
    executor = LocalExecutor([Slot("cuda-b", "card b", (("CUDA_VISIBLE_DEVICES", "b"),))])
    watch = DeviceWatch("null", "A", probe, pauses=(), devices=executor)
    with pytest.raises(PrerequisiteError, match="the device is gone"):
        lost(None)  # the only slot's results name no place
    executor.close()


def test_a_failure_that_sounds_like_the_device_is_run_once_more_and_then_believed():
    lost = crash("AcceleratorError: CUDA error: device lost")
    assert "device's fault" in suspect(Probe(True), lost)
    assert suspect(Probe(True), lost, repeated=True) is None
    assert suspect(Probe(True), crash("OutOfMemoryError: CUDA error: out of memory")) is None
    on_the_processor = lost.model_copy(update={"device_kind": "cpu"})
    assert suspect(Probe(True), on_the_processor) is None, "there is no such device"
    stand_in = f"{ANOTHER_KIND} cpu (a Xeon) and not on cuda, as the run does: the device is gone or hidden"
    instead = on_the_processor.model_copy(update={"reason": stand_in})
    assert "device's fault" in suspect(Probe(True), instead)
    assert suspect(probe := Probe(True), crash("it looked ahead", "invalid")) is None
    assert probe.looks == 0


def test_a_person_who_stops_does_not_wait_for_a_device():
    watch = DeviceWatch("null", "A", probe := Probe(False), pauses=(60.0,))
    with pytest.raises(PrerequisiteError):
        watch.lost(crash("x"), stopped=lambda: True)
    assert probe.looks == 1


def test_a_device_that_is_lost_in_a_trial_costs_nothing(workspace):
    watch = DeviceWatch("null", "A", Probe(False), pauses=())
    with open_run(workspace) as run, pytest.raises(PrerequisiteError, match="the device is gone"):
        Loop(run, Widths(9), Greedy(), Scripted({9: "crash"}), limits=Limits(1), device_watch=watch).go()
    watch = DeviceWatch("null", "A", Probe(True), pauses=())
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1), device_watch=watch).go()
        assert run.ledger.experiment(1).status == "keep"
        assert [(trial.k, trial.starts) for trial in run.ledger.trials(experiment=1)] == [(1, 2)]


class Slower(Scripted):
    """Another machine: everything scores 5 bits per byte higher there."""

    def submit(self, request, observer=None):
        handle = super().submit(request, observer)
        result = handle.result

        def worse(timeout=None):
            found = result(timeout)
            return found.model_copy(update={"val_bpb": found.val_bpb + 5.0})

        handle.result = worse
        return handle


@pytest.mark.parametrize("judge", [Racing(), Greedy()])
def test_on_another_machine_baseline_and_best_are_measured_again_and_nothing_is_compared_across(workspace, judge):
    with open_run(workspace, config=replace(CONFIG, machine="A, torch 1")) as run:
        Loop(run, Widths(5), judge, Scripted(), limits=Limits(1)).go()
        assert run.incumbent_number() == 1
    executor = Slower()
    with open_run(workspace, config=replace(CONFIG, machine="A, torch 2", device="new")) as run:
        assert "measured again here" in machine_moved(run.ledger.last_trial(), run.config.machine)
        Loop(run, Widths(5, 2), judge, executor, limits=Limits(2)).go()
        assert run.ledger.experiment(2).status == "keep"  # though 5.2 is above every score of the first machine
        machines = [trial.result["machine"] for trial in run.ledger.trials(experiment=2)]
        assert set(machines) == {"A, torch 2"}
        assert machine_moved(run.ledger.last_trial(), run.config.machine) is None
        if judge.name == "racing":
            facts = run.ledger.experiment(2).judged
            assert (facts["baseline"], facts["incumbent"]) == (pytest.approx(6.0), pytest.approx(5.5))
    expected = [10, 10, 5, 5, 2] if judge.name == "racing" else [2, 5]
    assert [width_of(request.source) for request in executor.requests][: len(expected)] == expected


def facts(batches=200, seconds=10.0, cpu=19.0, status="ok"):
    return {"status": status, "batches": batches, "train_seconds": seconds, "cpu_seconds": cpu}


def timed(**more):
    return TrialResult(seed=0, backend="null", preset="demo", tokens_per_second=1e5, **facts(**more))


def test_a_trial_with_far_fewer_batches_or_processors_than_usual_is_slow_whatever_its_tokens():
    usual = pace([facts(), facts(batches=210)])
    common = {"slept": 0.0, "same": trials(1e5), "incumbent": trials(1e5), "repeated": False}
    assert spoiled(timed(), usual=usual, **common) is None
    assert "batches a second" in spoiled(timed(batches=11), usual=usual, **common)
    assert "processors" in spoiled(timed(cpu=8.0), usual=usual, **common)
    assert spoiled(timed(batches=11), usual=usual, **{**common, "repeated": True}) is None
    # A file of another shape takes other batches by right, but the machine gives it as many processors.
    other = pace([], [facts()])
    assert slow(timed(batches=11), usual=other) is None
    assert "processors" in slow(timed(batches=11, cpu=8.0), usual=other)
    # A trial that was ended early is run again too: its loss may have been behind for want of a processor.
    assert slow(timed(status="stopped", batches=11, seconds=5.0), usual=usual) is not None
    assert slow(timed(status="crash", batches=11), usual=usual) is None


def test_a_file_that_is_slow_with_its_full_share_of_the_processor_is_slower_and_costs_no_second_trial():
    usual = pace([facts(), facts(batches=210)])
    common = {"slept": 0.0, "same": [], "incumbent": trials(1e5), "repeated": False}
    by_design = timed(batches=11).model_copy(update={"device_kind": "cpu"})
    assert spoiled(by_design, usual=usual, **common) is None
    assert "batches a second, where 20.5 are usual" in slower_file(by_design, usual=usual)
    assert "the file is slower" in slower_file(by_design, usual=usual)
    few = by_design.model_copy(update={"tokens_per_second": 2e4, "batches": 200})
    assert spoiled(few, usual=usual, **common) is None
    assert "tokens/s" in slower_file(few, incumbent=trials(1e5), usual=usual)
    # Robbed of a fifth of the processor, it may be slow for that; on a GPU processor time does not tell.
    robbed = by_design.model_copy(update={"cpu_seconds": 15.0})
    elsewhere = by_design.model_copy(update={"device_kind": "cuda"})
    for one in (robbed, elsewhere, timed(batches=11)):
        assert slower_file(one, usual=usual) is None
        assert "hot or busy" in spoiled(one, usual=usual, **common)
    # Against other trials of its own source, no file is slower by design.
    slow_now = by_design.model_copy(update={"tokens_per_second": 2e4, "batches": 200})
    assert "hot or busy" in spoiled(slow_now, usual=usual, **{**common, "same": trials(1e5)})
    assert slower_file(slow_now, same=trials(1e5), incumbent=trials(1e5), usual=usual) is None
    assert slower_file(timed(), usual=usual) is None


def test_a_slow_slot_is_told_from_a_slow_file_by_the_best_files_batches_there():
    best = [{**facts(), "place": "box1 gpu 0"}, {**facts(batches=100), "place": "box2 gpu 0"}, facts(batches=7)]
    assert (slot_pace(best, "box1 gpu 0"), slot_pace(best, "box2 gpu 0")) == (2.0, 0.5)
    assert slot_pace(best, "box3 gpu 0") is None and slot_pace(best, None) is None
    assert slot_pace(best[:1], "box1 gpu 0") is None, "nothing to compare with"
    failed = {**facts(batches=1, status="crash"), "place": "box2 gpu 0"}
    assert slot_pace([*best[:2], failed], "box2 gpu 0") == 0.5
    usual = pace([facts(), facts(batches=210)])
    lagging = timed(batches=60).model_copy(update={"device_kind": "cuda", "place": "box2 gpu 0"})
    node, file = (replace(usual, here=here) for here in (0.5, 1.0))
    assert "box2 gpu 0 is slow, the best file gets 50% of its usual batches there" in slow(lagging, usual=node)
    assert slower_file(lagging, usual=node) is None
    assert slow(lagging, usual=file) is None
    assert "the best file is not on box2 gpu 0: the file is slower" in slower_file(lagging, usual=file)
    assert "hot or busy" in slow(lagging, usual=usual), "where the best file was never measured, nobody can tell"
    # A trial whose batches are not known cannot hide behind a fast slot.
    crawling = lagging.model_copy(update={"batches": None, "tokens_per_second": 1e4})
    assert slow(crawling, incumbent=trials(1e5), usual=node) is not None


def test_what_was_slow_itself_or_failed_is_no_measure():
    usual = pace([facts(), facts(batches=50, cpu=5.0), facts(batches=9000, status="crash")], [facts(cpu=2.0)])
    assert usual.batches == (20.0,)
    assert usual.processors == (1.9,)
    assert pace([{"status": "ok"}]) == pace([])


def test_files_are_of_one_shape_when_only_fractions_differ():
    text = TRAIN.replace("WIDTH = 8", "RATE = 0.1\nWIDTH = 8")
    assert same_shape(text, text.replace("RATE = 0.1", "RATE = 0.2"))
    assert not same_shape(text, text.replace("WIDTH = 8", "WIDTH = 9"))
    assert not same_shape("x = 1", "x = 1")
    assert not same_shape("def", text)


class SlowAtNine(Scripted):
    """Trials in which width 9 gets little of the processor: by a busy machine, or by its own doing."""

    def submit(self, request, observer=None):
        handle, result = super().submit(request, observer), ScriptedHandle.result
        few = width_of(request.source) == 9
        handle.result = lambda timeout=None: result(handle).model_copy(
            update={"cpu_seconds": 4.0 if few else 10.0, "train_seconds": 10.0}
        )
        return handle


def test_a_program_that_a_slow_machine_spoilt_twice_may_be_tried_once_more(workspace):
    executor = SlowAtNine()
    with open_run(workspace) as run:
        Loop(run, Widths(9, 12), Greedy(), executor, limits=Limits(2)).go()
        assert [width_of(request.source) for request in executor.requests] == [10, 9, 9, 12]
        assert run.ledger.numbers_of("trial slow") == [1]
        loop = Loop(run, Widths(), Greedy(), executor)
        marks = [fingerprint(run.ledger.text(run.ledger.experiment(n).source_sha256)) for n in (1, 2)]
        assert loop._may_repeat(1, marks[0])
        assert not loop._may_repeat(2, marks[1])


def test_a_file_that_makes_its_bad_trials_slow_gets_one_more_draw_and_no_second(workspace):
    class Twice(Greedy):
        """A judge that asks for two trials of every change."""

        def consider(self, evidence):
            tried = len(evidence.candidate.trials)
            more = evidence.candidate.experiment != 0 and tried == 1
            return RunTrial("candidate", tried) if more else super().consider(evidence)

    executor = SlowAtNine()
    with open_run(workspace) as run:
        Loop(run, Widths(9), Twice(), executor, limits=Limits(1)).go()
        assert run.ledger.numbers_of("trial repeated") == [1]
        assert [width_of(request.source) for request in executor.requests] == [10, 9, 9, 9]


class SlowTrials(Scripted):
    """The starts of this list get little of the processor."""

    def __init__(self, *slow, **more):
        super().__init__(**more)
        self.slow = slow

    def submit(self, request, observer=None):
        handle, result = super().submit(request, observer), ScriptedHandle.result
        few = len(self.requests) in self.slow
        weights = "0" * 64 if width_of(request.source) == 10 else None
        handle.result = lambda timeout=None: result(handle).model_copy(
            update={"cpu_seconds": 4.0 if few else 10.0, "train_seconds": 10.0, "weights_sha256": weights}
        )
        return handle


class MeasuresTheBestAgain(Greedy):
    """A judge that asks for another trial of the best file before each candidate's own."""

    def consider(self, evidence):
        first = evidence.candidate.experiment != 0 and not evidence.asked
        return RunTrial("incumbent", 50) if first else super().consider(evidence)


def test_what_a_trial_of_the_best_file_does_is_not_held_against_the_candidate_that_asked_for_it(workspace):
    # The second and third start are the best file's trial, slow twice; the fourth is the candidate's.
    executor, events = SlowTrials(2, 3, 4), []
    with open_run(workspace) as run:
        Loop(run, Widths(9), MeasuresTheBestAgain(), executor, limits=Limits(1), observer=events.append).go()
        assert [width_of(request.source) for request in executor.requests] == [10, 10, 10, 9, 9]
        assert [(one["subject"], one["k"]) for one in run.ledger.events("trial repeated")] == [(0, 1), (1, 2)]
        # The candidate was measured well: its program has had its turn.
        assert run.ledger.numbers_of("trial slow") == []
        assert run.ledger.numbers_of("seed ignored") == [0]
    assert [event.experiment for event in events if isinstance(event, SeedIgnored)] == [0]
    said = [event.reason for event in events if isinstance(event, Repeated)]
    assert [words.endswith("(it is a trial of experiment 0)") for words in said] == [True, False]


def test_a_machine_that_slept_takes_no_excuse(workspace, monkeypatch):
    clock = {"asleep": 0.0}
    monkeypatch.setattr(scheduler, "asleep_seconds", lambda: clock["asleep"])

    def during(request):
        clock["asleep"] += 3600.0 * (len(executor.requests) == 2)

    executor = SlowTrials(3, during=during)
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), executor, limits=Limits(1)).go()
        assert [width_of(request.source) for request in executor.requests] == [10, 9, 9, 9]
        assert [one["slept"] for one in run.ledger.events("trial repeated")] == [True, False]
        assert run.ledger.numbers_of("trial slow") == []


def late_start(busy, seconds=300.0):
    more = {"reason": f"{SLOW_START} of 300 s", "startup_seconds": seconds, "startup_cpu_seconds": busy * seconds}
    return result(None, "timeout").model_copy(update=more)


def test_a_start_that_was_kept_from_its_processor_is_run_once_more_and_one_that_needs_the_time_is_not():
    common = {"slept": 0.0, "same": [], "incumbent": []}
    said = spoiled(late_start(0.3), **common, repeated=False)
    assert (
        said == f"{SLOW_START} of 300 s: it got 0.30 processors, where 1.00 are usual: the machine may have been busy"
    )
    assert spoiled(late_start(0.3), **common, repeated=True) is None
    assert spoiled(late_start(0.97), **common, repeated=False) is None
    # Where the run's other starts wait for a disk or a device, so may this one.
    waits = {"status": "ok", "startup_seconds": 20.0, "startup_cpu_seconds": 6.0}
    assert spoiled(late_start(0.3), **common, repeated=False, usual=pace([], [waits])) is None
    unknown = late_start(0.3).model_copy(update={"startup_cpu_seconds": None})
    in_training = late_start(0.3).model_copy(update={"reason": "the train child did not return from train"})
    assert spoiled(unknown, **common, repeated=False) is spoiled(in_training, **common, repeated=False) is None


class FirstTrials(Scripted):
    """The first `times` trials of width 9 end with another `result`."""

    def __init__(self, times, result):
        super().__init__()
        self.times, self.result = times, result

    def submit(self, request, observer=None):
        handle = super().submit(request, observer)
        count = sum(width_of(one.source) == 9 for one in self.requests)
        if width_of(request.source) == 9 and count <= self.times:
            handle.result = lambda timeout=None: self.result
        return handle


@pytest.mark.parametrize(("times", "status"), [(1, "keep"), (5, "timeout")])
def test_a_late_start_on_a_busy_machine_costs_one_more_trial_and_no_second(workspace, times, status):
    executor, events = FirstTrials(times, late_start(0.3)), []
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), executor, limits=Limits(1), observer=events.append).go()
        assert [width_of(request.source) for request in executor.requests] == [10, 9, 9]
        assert run.ledger.experiment(1).status == status
    assert "the machine may have been busy" in next(event.reason for event in events if isinstance(event, Repeated))


@pytest.mark.parametrize(("times", "status"), [(1, "keep"), (2, "crash")])
def test_a_trial_that_the_system_killed_for_lack_of_memory_is_run_once_more(workspace, times, status):
    killed = SimpleNamespace(role="train", returncode=lambda: 128 + signal.SIGKILL)
    executor = FirstTrials(times, crash(gone(killed).reason))
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), executor, limits=Limits(1)).go()
        assert [width_of(request.source) for request in executor.requests] == [10, 9, 9]
        assert run.ledger.experiment(1).status == status
        assert "other work may have taken it" in run.ledger.events("trial repeated")[0]["reason"]


def test_what_a_file_says_of_its_steps_does_not_make_its_trial_slow():
    usual, said = pace([facts(), facts(batches=210)]), {"steps": 3}
    assert pace([facts() | said]).batches == pace([facts()]).batches
    assert slow(timed().model_copy(update=said), usual=usual) is None
    # Results of earlier versions only have that count.
    older = {name: value for name, value in facts().items() if name != "batches"} | {"steps": 200}
    assert pace([older]).batches == (20.0,)
