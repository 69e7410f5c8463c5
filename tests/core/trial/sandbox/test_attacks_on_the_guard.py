"""A child that attacks its guard, or the process that started it, leaves nothing behind at any level on Linux."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.core.trial.processes import Child, Launch
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox import guard
from autoresearch.core.trial.sandbox.levels import levels, open_sandbox
from autoresearch.core.trial.sandbox.system_calls import why_unavailable

LEVELS = [status.level for status in levels() if status.available and status.level != "seatbelt"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt its orphans")
FILTERED = pytest.mark.skipif(why_unavailable() is not None, reason=f"no filter: {why_unavailable()}")

HELP = """
import ctypes, fcntl, os, resource, signal, socket, subprocess, sys, time
library = ctypes.CDLL(None, use_errno=True)
def tried(what, *arguments):
    try: return what(*arguments)
    except OSError as error: return error
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.execvp('sleep', ['sleep', MARK])
        os._exit(0)
"""
ATTACKS = {
    "starves the guard of descriptors": """
for pid in range(1, 3): tried(resource.prlimit, os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
for pid in range(os.getpid() - 40, os.getpid() + 40):
    if pid > 1 and pid != os.getpid(): tried(resource.prlimit, pid, resource.RLIMIT_NOFILE, (0, 0))
daemon()
""",
    "stops and kills the guard": """
for pid in range(os.getpid() - 3, os.getpid()):
    if pid == os.getppid():
        for number in (signal.SIGSTOP, signal.SIGKILL): print(tried(os.kill, pid, number), file=sys.stderr)
daemon()
""",
    "has the kernel send the signal": """
a, b = socket.socketpair()
for word in (fcntl.F_SETOWN, 15): tried(fcntl.fcntl, a.fileno(), word, os.getppid())
tried(fcntl.fcntl, a.fileno(), 10, signal.SIGKILL)
tried(fcntl.fcntl, a.fileno(), fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
b.send(b'x')
daemon()
""",
    "signals everything": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tried(os.kill, -1, signal.SIGTERM)
tried(os.killpg, tried(os.getpgid, os.getppid()), signal.SIGKILL) if os.getppid() else None
daemon()
""",
    "adopts its orphans itself": """
library.prctl(36, 1, 0, 0, 0)
for _ in range(5): daemon()
""",
    "a fork bomb": """
for _ in range(6): os.fork()
if os.fork() == 0: os.setsid()
daemon()
""",
    "clears its parent-death signal and ignores signals": """
library.prctl(1, 0, 0, 0, 0)
for number in range(1, 32): tried(lambda: signal.signal(number, signal.SIG_IGN)) if number not in (9, 19, 17) else None
daemon()
""",
}


def left(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if any(mark in word for word in command) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return [process for process in found if process.pid != os.getpid()]


@FILTERED
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_survives(attack: str, level: IsolationLevel, tmp_path: Path) -> None:
    mark = str(20_000_000_000 + time.monotonic_ns() % 10**9)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    code = f"MARK = {mark!r}\n{HELP}\n{ATTACKS[attack]}\ntime.sleep(600)\n"
    mine = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)
    child = Child(Launch("train", [sys.executable, "-c", code], tmp_path, sandbox=open_sandbox(level)))
    try:
        until = time.monotonic() + 30
        while not any(mark in process.info["cmdline"][-1:] for process in left(mark)):  # it may end meanwhile
            assert time.monotonic() < until, f"the daemon did not start: {child.read(child.log_fd)!r}"
            time.sleep(0.05)
        assert child.returncode() is None, "the guard did not survive"
        assert psutil.Process(child.pid).status() != psutil.STATUS_STOPPED
        assert psutil.Process(child.pid).rlimit(psutil.RLIMIT_NOFILE)[0] > 3
    finally:
        child.close()
    assert left(mark) == []
    assert psutil.Process().rlimit(psutil.RLIMIT_NOFILE) == mine


def test_a_guard_without_descriptors_still_finds_its_family() -> None:
    command = [sys.executable, "-I", "-S", guard.__file__, "--", "sh", "-c"]
    command.append("setsid sh -c 'echo $$; exec sleep 60' & sleep 60")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    daemon = psutil.Process(int(process.stdout.readline()))
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE, (0, 0))
    process.stdin.close()
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not daemon.is_running()


def test_a_guard_that_was_stopped_goes_on_and_kills(tmp_path: Path) -> None:
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    child = Child(Launch("train", ["sleep", "600"], tmp_path))
    psutil.Process(child.pid).suspend()
    started = time.monotonic()
    child.close()
    assert time.monotonic() - started < 15
    assert not psutil.pid_exists(child.pid)
