"""Processes below a child are all found, and read anew only when somebody has started one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from autoresearch.core.trial import descendants as module
from autoresearch.core.trial.descendants import descendants

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere psutil is asked every time")


@pytest.fixture
def family(tmp_path):
    """Three generations; one has a name that could be taken for the end of a name."""
    shell = tmp_path / "a) S 1 (b"
    shell.symlink_to("/bin/sh")
    process = subprocess.Popen([str(shell), "-c", "/bin/sh -c 'sleep 60; true' & wait"], start_new_session=True)
    until = time.monotonic() + 20
    while len(psutil.Process(process.pid).children(recursive=True)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_every_generation_is_found_whatever_it_is_called(family):
    everyone = {one.pid for one in psutil.Process(family.pid).children(recursive=True)}
    assert len(everyone) == 2
    assert {one.pid for one in descendants(family.pid)} == everyone
    assert family.pid in {one.pid for one in descendants(os.getpid())}


def test_who_starts_is_seen_at_once():
    for _ in range(5):
        with subprocess.Popen(["sleep", "60"]) as process:
            assert process.pid in {one.pid for one in descendants(os.getpid())}
            process.kill()


def test_nobody_lives_below_a_process_that_is_gone():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert descendants(process.pid) == []


@linux
def test_the_processes_are_read_once_while_nobody_starts_one(family, monkeypatch):
    numbers, reads = iter(["7", "7", "7", "8"]), []
    real = module._read
    monkeypatch.setattr(module, "_known", module._Known())
    monkeypatch.setattr(module, "_latest", lambda: next(numbers))
    monkeypatch.setattr(module, "_read", lambda: reads.append(real()))
    for known in (1, 1, 1, 2):
        assert len(descendants(family.pid)) == 2
        assert len(reads) == known


@linux
def test_where_the_kernel_does_not_tell_the_latest_number_they_are_read_every_time(family, monkeypatch, tmp_path):
    reads, real = [], module._read
    monkeypatch.setattr(module, "_latest", lambda: None)
    monkeypatch.setattr(module, "_read", lambda: reads.append(real()))
    assert [len(descendants(family.pid)) for _ in range(2)] == [2, 2]
    assert len(reads) == 2


@linux
def test_an_orphan_is_found_below_the_one_that_takes_it_in():
    # The shell in the middle ends; who asks adopts its child, as a guard does.
    script = (
        "import ctypes, os, subprocess, time\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"  # PR_SET_CHILD_SUBREAPER
        "subprocess.Popen(['/bin/sh', '-c', 'sleep 60 & read line'], stdin=subprocess.PIPE)\n"
        "from autoresearch.core.trial.descendants import descendants\n"
        "found = lambda: sorted(one.name() for one in descendants(os.getpid()))\n"
        "until = time.monotonic() + 20\n"
        "while found() != ['sh', 'sleep'] and time.monotonic() < until: time.sleep(0.01)\n"
        "os.kill([one.pid for one in descendants(os.getpid()) if one.name() == 'sh'][0], 9)\n"
        "os.wait()\n"
        "subprocess.run(['true'])\n"
        "print(found())\n"
        "[one.kill() for one in descendants(os.getpid())]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['sleep']\n"


@linux
def test_a_number_that_was_given_away_again_is_another_process(family, monkeypatch):
    monkeypatch.setattr(module, "_latest", lambda: None)
    first = descendants(family.pid)
    assert all(one is other for one, other in zip(descendants(family.pid), first, strict=True))
    reused = first[0].pid
    module._known.started[reused] = b"before"
    module._known.read -= 60  # as after a pause in which all numbers were given away
    again = {one.pid: one for one in descendants(family.pid)}
    assert again[reused] is not first[0]
