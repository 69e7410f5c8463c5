"""Nothing that a child starts survives its guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from autoresearch.core.trial.sandbox import guard

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt its orphans")


def start(*argv: str, limits: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", guard.__file__, *limits, "--", *argv]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def said_pid(process: subprocess.Popen[bytes]) -> psutil.Process:
    assert process.stdout is not None
    return psutil.Process(int(process.stdout.readline()))


def test_it_passes_the_exit_status_on() -> None:
    assert start("sh", "-c", "exit 7").wait(30) == 7
    assert start("sh", "-c", "kill -SEGV $$").wait(30) == 128 + signal.SIGSEGV


def test_a_command_that_is_not_there_ends_with_127() -> None:
    assert start("/no/such/program").wait(30) == 127


@LINUX_ONLY
def test_closing_the_lifeline_kills_a_daemon_that_left_the_session() -> None:
    process = start("sh", "-c", "setsid sh -c 'echo $$; exec sleep 60' & sleep 60")
    daemon = said_pid(process)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 128 + signal.SIGKILL
    wait_until(lambda: not daemon.is_running())


@LINUX_ONLY
def test_a_daemon_does_not_outlive_a_child_that_ends_by_itself() -> None:
    process = start("sh", "-c", "setsid sh -c 'echo $$; exec sleep 60' & sleep 0.2")
    daemon = said_pid(process)
    assert process.wait(30) == 0
    wait_until(lambda: not daemon.is_running())


@LINUX_ONLY
def test_the_child_dies_with_a_guard_that_is_killed() -> None:
    process = start("sh", "-c", "echo $$; exec sleep 60")
    child = said_pid(process)
    process.kill()
    process.wait(30)
    wait_until(lambda: not child.is_running())


def test_the_limits_hold_in_the_child() -> None:
    code = "import resource as r; print(r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_FSIZE))"
    process = start(sys.executable, "-c", code, limits=("CORE=0", "FSIZE=4096"))
    assert process.stdout is not None
    assert process.stdout.read().decode().strip() == "(0, 0) (4096, 4096)"
    assert process.wait(30) == 0


def test_the_child_has_no_standard_input() -> None:
    process = start(sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))")
    assert process.stdout is not None
    assert process.stdout.read().strip() == b"''"
    assert process.wait(30) == 0


def test_the_guard_holds_no_copy_of_the_childs_descriptors() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    command = [sys.executable, "-I", "-S", guard.__file__, "--", "sh", "-c", f"exec {writer}>&-; exec sleep 60"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[writer])
    os.close(writer)
    assert os.read(reader, 1) == b""  # end of file, though guard and child are alive
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    process.wait(30)
    os.close(reader)


@LINUX_ONLY
def test_the_kernel_ends_what_it_starts_first_when_memory_runs_out() -> None:
    process = start("cat", "/proc/self/oom_score_adj", limits=("--oom-score", "1000"))
    assert process.stdout is not None
    assert process.stdout.read() == b"1000\n"
    assert process.wait(30) == 0
