"""Trials of a finished run's files: in turn, and once more when the machine was busy."""

from __future__ import annotations

import threading

import pytest

from autoresearch.core.errors import ArError, TrialError
from autoresearch.core.fleet.executor import TrialLost
from autoresearch.core.followup import remeasure
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.supervisor import TrialCancelled


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


def test_all_trials_of_a_call_run_on_the_kind_of_device_that_the_first_one_had(tmp_path, monkeypatch):
    asked = []

    def trial(request, **_):
        asked.append(request.device_kind)
        return ended(request, 0, status="crash" if len(asked) == 1 else "ok", device_kind="cuda")

    monkeypatch.setattr(remeasure, "run_trial", trial)
    remeasurer = on(None, tmp_path)
    assert remeasurer.outcome("a-0", "a", 0).val_bpb is None
    assert [remeasurer.measure(f"b-{n}", "b", n) for n in range(2)] == [0.0, 1.0]
    assert asked == [None, None, "cuda"]


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


def test_a_file_that_used_up_its_excuse_has_none_after_an_interruption(tmp_path):
    class Notes(dict):
        def events(self, kind):
            return self.get(kind, [])

        def note(self, kind, _experiment, payload):
            self.setdefault(kind, []).append(payload)

    ledger = Notes()

    def slow(request, number):
        return ended(request, number, status="timeout", val_bpb=None, reason="too slow")

    def outcome(result_of, command="verify"):
        device = Device(1, result_of)
        call = remeasure.Call.of(ledger, command, 1, lambda: "here")
        return device, on(device, tmp_path, call=call).outcome("a-0", "a", 0)

    device, _ = outcome(slow)
    assert len(device.started) == 2
    again, failed = outcome(slow)
    assert len(again.started) == 1 and failed.val_bpb is None
    other, _ = outcome(slow, "scale")
    assert len(other.started) == 2


class Device:
    """An executor whose trials end when the test says so, or by themselves."""

    def __init__(self, count, result_of):
        self.count, self.result_of = count, result_of
        self.started, self.cancelled, self.most = [], [], 0
        self.open = set()

    def capacity(self):
        return self.count

    def submit(self, request, observer=None):
        self.started.append(request.folder.name)
        self.open.add(len(self.started))
        self.most = max(self.most, len(self.open))
        return Handed(self, request, len(self.started))

    def close(self):
        pass


class Handed:
    def __init__(self, device, request, number):
        self.device, self.request, self.number, self.asked = device, request, number, 0

    def done(self):
        self.asked += 1  # the second look finds the result, so that trials overlap
        return self.asked > 1 and self.device.result_of is not None

    def result(self, timeout=None):
        self.device.open.discard(self.number)
        found = self.device.result_of(self.request, self.number)
        if isinstance(found, Exception):
            raise found
        return found

    def on_done(self, call):
        call()

    def cancel(self):
        self.device.cancelled.append(self.request.folder.name)


def on(device, tmp_path, **more):
    config = {"backend": "null", "preset": "demo", "prepared": "", "eval_seq_len": 256, "score_rows": 32, "seed": 7}
    config |= {"train_seconds": 1.0, "startup_seconds": 1.0}
    return remeasure.Remeasurer(config, tmp_path, "test", 0, executor=device, **more)


def ended(request, number, **more):
    common = {"seed": request.seed, "backend": "null", "preset": "demo", "tokens_per_second": 100.0}
    return TrialResult(**{**common, "status": "ok", "val_bpb": float(request.seed), "place": f"gpu {number}", **more})


def wanted(count, source="a"):
    return [remeasure.Wanted(f"{source}-{n}", source, n) for n in range(count)]


def test_trials_run_on_as_many_devices_as_there_are_and_each_is_noted_once(tmp_path):
    device, notes = Device(3, ended), []
    call = remeasure.Call("verify", 1, {}, notes.append)
    remeasurer = on(device, tmp_path, call=call, machine="a share")
    assert remeasurer.measure_all(wanted(7)) == {f"a-{n}": float(n) for n in range(7)}
    assert device.most == 3 and sorted(device.started) == [f"a-{n}" for n in range(7)]
    assert sorted(note["name"] for note in notes) == sorted(device.started)
    assert {note["machine"] for note in notes} == {"a share"}
    again = on(Device(3, ended), tmp_path, call=remeasure.Call("verify", 1, {one["name"]: one for one in notes}))
    assert again.measure_all(wanted(7)) == {f"a-{n}": float(n) for n in range(7)}
    assert not again.executor.started


def test_a_lost_machine_costs_its_trial_alone_and_losing_five_ends_the_call(tmp_path):
    lost = TrialLost("its node was lost.")
    device = Device(2, lambda request, number: lost if number == 2 else ended(request, number))
    told = []
    assert on(device, tmp_path, say=told.append).measure_all(wanted(4)) == {f"a-{n}": float(n) for n in range(4)}
    assert len(device.started) == 5 and told == ["a-1 is run again: its node was lost."]
    with pytest.raises(ArError, match="lost its machine 5 times"):
        on(device := Device(2, lambda *_: lost), tmp_path).measure_all(wanted(4))
    assert len(device.started) < 12


def test_a_signal_ends_every_trial_and_an_executor_that_fails_leaves_none_behind(tmp_path):
    cancel, device = threading.Event(), Device(2, None)
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(TrialCancelled):
        on(device, tmp_path, cancel=cancel).measure_all(wanted(4))
    assert device.cancelled == device.started == ["a-0", "a-1"]
    broken = Device(2, lambda request, number: TrialError("no corpus.") if number == 1 else ended(request, number))
    with pytest.raises(TrialError, match="no corpus"):
        on(broken, tmp_path).measure_all(wanted(4))
    assert broken.cancelled == ["a-1"]


def test_after_one_that_fails_no_further_trial_starts_where_that_is_asked_for(tmp_path):
    def result(request, number):
        failed = {"status": "crash", "val_bpb": None, "reason": "too large"} if number == 1 else {}
        return ended(request, number, **failed)

    device = Device(2, result)
    found = on(device, tmp_path).outcomes(wanted(6), until_one_fails=True)
    assert list(found) == ["a-0", "a-1"] and found["a-0"].reason == "crash: too large" and len(device.started) == 2


def test_a_slow_trial_is_run_once_more_on_the_executor_and_its_source_only_once(tmp_path):
    told = []
    slow = (2, 5)
    speed = dict.fromkeys(slow, 20.0)
    device = Device(1, lambda request, number: ended(request, number, tokens_per_second=speed.get(number, 100.0)))
    remeasurer = on(device, tmp_path, say=told.append, usual={"a": [100.0]})
    remeasurer.outcomes(wanted(4))
    assert device.started == ["a-0", "a-1", "a-1", "a-2", "a-3"] and len(told) == 1


@pytest.mark.parametrize(("cpu_seconds", "trials"), [(0.96, 2), (0.5, 3)])
def test_a_file_that_reads_less_text_is_slow_by_design_where_it_had_its_processor(tmp_path, cpu_seconds, trials):
    def trial(request, number):
        less = request.source == "without memory"
        facts = {"tokens_per_second": 20.0 if less else 100.0, "cpu_seconds": cpu_seconds if less else 0.98}
        return ended(request, number, **facts, device_kind="cpu", train_seconds=1.0, place=None)

    device = Device(1, trial)
    on(device, tmp_path).outcomes([*wanted(1, "final"), *wanted(1, "without memory")])
    assert len(device.started) == trials


@pytest.mark.parametrize("devices", [None, 1])
def test_a_trial_during_which_the_machine_slept_never_counts_and_costs_no_excuse(tmp_path, monkeypatch, devices):
    # The second trial is slow, and the machine sleeps during the third, the fourth and the sixth.
    clock, ran, told = [0.0], [], []

    def trial(request, *_args, **_more):
        ran.append(request.folder.name)
        clock[0] += 60.0 if len(ran) in (3, 4, 6) else 0.0
        return ended(request, 1, tokens_per_second=20.0 if len(ran) == 2 else 100.0, val_bpb=float(len(ran)))

    monkeypatch.setattr(remeasure, "asleep_seconds", lambda: clock[0])
    monkeypatch.setattr(remeasure, "run_trial", trial)
    device = None if devices is None else Device(devices, trial)
    remeasurer = on(device, tmp_path, usual={"a": [100.0]}, say=told.append)
    assert [remeasurer.measure(one.name, one.source, one.seed) for one in wanted(3)] == [1.0, 5.0, 7.0]
    assert ran == ["a-0", "a-1", "a-1", "a-1", "a-1", "a-2", "a-2"]
    assert sum("slept for 60 s" in line for line in told) == 3
