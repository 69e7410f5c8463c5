"""The device is the one that a trial sees, and a trial on another kind of device ends with that reason."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autoresearch.backends.contract import Device
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.events import DeviceFound
from autoresearch.core.trial import device
from autoresearch.core.trial.child.channel import Failed
from autoresearch.core.trial.context import closed_failure
from autoresearch.core.trial.processes import proportional_bytes
from autoresearch.core.trial.sandbox.levels import best_level
from autoresearch.core.trial.supervisor import run_trial
from tests.helpers.null_trials import request

CARD = Device("cuda", "a card", 80e3, "bf16", "torch 2")
PROCESSOR = replace(CARD, kind="cpu", name="a processor")


def test_the_probe_looks_from_where_a_trial_looks(monkeypatch):
    asked = []
    monkeypatch.setattr(
        device, "_first_device", lambda backend, sandbox, environment: asked.append(sandbox.level) or CARD
    )
    assert device.probe_device("cuda") == CARD
    assert asked == [best_level()]


@pytest.mark.skipif(best_level() == "process", reason="no sandbox here")
def test_a_card_that_only_the_parent_sees_is_an_error_and_no_slow_run(monkeypatch):
    monkeypatch.setattr(
        device, "_first_device", lambda backend, sandbox, environment: CARD if sandbox.level == "process" else PROCESSOR
    )
    monkeypatch.setattr(device, "nvidia_cards", lambda: ["/dev/nvidia0"])
    with pytest.raises(PrerequisiteError, match=r"a card is there, and a trial at isolation level .* would not see it"):
        device.probe_device("cuda")
    monkeypatch.setattr(device, "nvidia_cards", list)
    monkeypatch.setattr(sys, "platform", "linux")
    assert device.probe_device("cuda") == PROCESSOR, "without a card nobody asks twice"


def test_a_trial_on_another_kind_of_device_than_expected_ends_before_it_trains(prepared: Prepared, tmp_path: Path):
    result = run_trial(request(prepared, tmp_path, device_kind="cuda"))
    assert result.status == "crash"
    assert result.reason.startswith("the train child computes on numpy (")
    assert "and not on cuda" in result.reason
    assert not result.tokens


def test_a_score_process_on_another_kind_of_device_says_so_and_nothing_else():
    failed = Failed("start-up", "DeviceMismatchError", "secret text", None, False)
    end = closed_failure(failed, "score", (1, 2, 3), 10)
    assert end.status == "crash"
    assert end.reason == "the score process computes on another kind of device than the train process did"


@pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")
def test_a_page_that_two_processes_share_counts_once():
    code = "import os, time; x = bytearray(b'x' * 2**26); os.fork(); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            parent.stdout.readline()
            parent.stdout.readline()
            both = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children()]
            assert len(both) == 2
            resident = sum(process.memory_info().rss for process in both)
            shared = sum(map(proportional_bytes, both))
            assert resident > 2 * 2**26
            assert 2**26 < shared < 1.6 * 2**26
        finally:
            for process in both:
                process.kill()
    deadline = time.monotonic() + 20
    while both[1].is_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert proportional_bytes(both[1]) == 0, "one that is gone takes nothing"


def test_a_probe_has_the_variables_that_choose_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []

    class Started:
        def __init__(self, launch: object) -> None:
            launched.append(launch)

        def close(self) -> None:
            pass

    monkeypatch.setattr(device, "Child", Started)
    monkeypatch.setattr(device, "_messages", lambda *_: iter([DeviceFound(CARD)]))
    assert device.probe_device("null", (("CUDA_VISIBLE_DEVICES", "GPU-b"),)) == CARD
    assert launched[0].environment["CUDA_VISIBLE_DEVICES"] == "GPU-b"
