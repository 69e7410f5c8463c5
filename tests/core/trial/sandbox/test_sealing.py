"""A child that has loaded its weights looks up no name any more, whatever its train file has prepared against it."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from page_cache_state import cached, gone
from prerequisites import lacking

from autoresearch.core.trial.page_cache import FileId, evict
from autoresearch.core.trial.processes import Child, Launch
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox import sealing, system_calls, tracing
from autoresearch.core.trial.sandbox.levels import levels, open_sandbox
from autoresearch.core.trial.sandbox.sealing import SealFault, seal, why_unsealed

LEVELS = [status.level for status in levels() if status.available and status.level != "seatbelt"]
WHY = why_unsealed(LEVELS[0]) if sys.platform == "linux" else "it is Linux only"
pytestmark = pytest.mark.skipif(WHY is not None, reason=f"nothing can be sealed here: {WHY}")
ALL = pytest.mark.parametrize("level", LEVELS)
ONE: IsolationLevel = LEVELS[0] if LEVELS else "process"

BEGINNING = """
import ctypes, errno, json, mmap, os, platform, signal, socket, struct, sys, threading, time
library = ctypes.CDLL(None, use_errno=True)
parent = socket.socket(fileno=int(sys.argv[1]))
looks = mmap.mmap(-1, 8)  # shared with every process that comes from this one
def count(): return struct.unpack('=Q', looks[:])[0]
def look_up():
    try: os.stat('/')
    except OSError: return
    looks[:] = struct.pack('=Q', count() + 1)
def for_ever(what):
    while True: what()
def beside(what): threading.Thread(target=for_ever, args=(what,), daemon=True).start()
def tried(what, *arguments):
    try: return what(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
def answer():
    '''Wait to be sealed, and say whether anything still looks up names.'''
    parent.send(b'r')
    parent.recv(1)
    before = -1
    for _ in range(20):  # a look that was over when its thread was stopped is counted now, or later on a busy machine
        if before == (before := count()): break
        time.sleep(0.02)
    time.sleep(0.05)
    look_up()
    parent.send(json.dumps(count() - before).encode())
    parent.recv(1)
"""
ATTACKS = {
    "does nothing": "",
    "looks up names in a thread": "beside(look_up)",
    "looks up names in a process": "if os.fork() == 0: for_ever(look_up)",
    "looks up names in a daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: for_ever(look_up)
    os._exit(0)
""",
    "adopts the daemons itself": """
library.prctl(36, 1, 0, 0, 0)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: for_ever(look_up)
        os._exit(0)
""",
    "makes brothers and not children": """
flags = 0x8000 | signal.SIGCHLD  # CLONE_PARENT
clone = 56 if platform.machine() == 'x86_64' else 220
if library.syscall(clone, flags, 0, 0, 0, 0) == 0: for_ever(look_up)
""",
    "waits for a process that has its memory": """
# The thread that calls vfork waits until the other process is gone.
def copy():
    if library.vfork() == 0: library.pause()
if platform.machine() == 'x86_64': threading.Thread(target=copy, daemon=True).start()
time.sleep(0.1)
if os.fork() == 0: for_ever(look_up)
""",
    "blocks every signal": """
signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))
beside(look_up)
""",
    "is interrupted all the time": """
signal.signal(signal.SIGALRM, lambda *_: look_up())
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
""",
    "waits in no call": """
def answer():
    parent.send(b'r')
    while True:
        sum(range(10_000))
        try: parent.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError: continue
        break
    look_up()
    parent.send(json.dumps(count()).encode())
    parent.recv(1)
""",
    "goes on without its first thread": """
def rest():
    time.sleep(0.1)
    answer()
    os._exit(0)
threading.Thread(target=rest).start()
library.syscall(ctypes.c_long(60 if platform.machine() == 'x86_64' else 93), 0)
""",
    "leaves dead children behind": """
for _ in range(20):
    if os.fork() == 0: os._exit(0)
time.sleep(0.1)
""",
    "passes on a forged name": "library.prctl(15, b'a) Z 1 (b', 0, 0, 0)\nbeside(look_up)",
}


@contextmanager
def child(code: str, level: IsolationLevel, place: Path) -> Iterator[tuple[Child, socket.socket]]:
    """A process behind its guard, and this end of the socket that it is given."""
    for name in ("home", "tmp"):
        (place / name).mkdir()
    (place / "code.py").write_text(BEGINNING + code)
    near, far = socket.socketpair()
    near.settimeout(30)
    argv = [sys.executable, "-I", "-S", "code.py", str(far.fileno())]
    started = Child(Launch("score", argv, place, sandbox=open_sandbox(level), descriptors=(far.fileno(),)))
    far.close()
    try:
        assert near.recv(1) == b"r", started.read(started.log_fd)
        yield started, near
    finally:
        near.close()
        started.close()


@ALL
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_sealed_child_looks_up_a_name(attack: str, level: IsolationLevel, tmp_path: Path) -> None:
    with child(f"{ATTACKS[attack]}\nanswer()\n", level, tmp_path) as (process, near):
        seal(process.pid, level)
        near.send(b"1")
        assert json.loads(near.recv(100)) == 0
        others = {found.pid for found in psutil.Process(process.pid).children(True)}
        looks = [found.info for found in psutil.process_iter(["name", "status"]) if found.pid in others]
        running = [look for look in looks if look["name"] == "python" and look["status"] != psutil.STATUS_ZOMBIE]
        assert len(running) <= 1


@ALL
def test_what_a_sealed_child_can_still_read_is_in_memory(level: IsolationLevel, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_bytes(bytes(4 << 20))
    evict([shared])
    if not gone(shared):
        lacking("this file system lives in memory")
    code = """
with open('shared', 'rb') as file: held = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
parent.send(b'r')
parent.recv(1)
"""
    with child(code, level, tmp_path) as (process, _):
        assert gone(shared)
        seal(process.pid, level)
        assert cached(shared)


def test_nothing_of_a_child_runs_while_its_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[str] = []

    def fill(pid: int, limit: float, done: set[FileId]) -> None:
        states.extend(
            path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")
        )
        time.sleep(0.3)

    monkeypatch.setattr(sealing, "fill", fill)
    with child("for _ in range(3): beside(lambda: None)\nanswer()\n", ONE, tmp_path) as (process, _):
        ran = seal(process.pid, ONE)
    assert states.count("t") == len(states) >= 4
    assert 0.0 < ran < 0.3


def test_no_file_that_was_sent_to_itself_is_taken_out(tmp_path: Path) -> None:
    code = """
left, right = socket.socketpair()
socket.send_fds(left, [b'f'], [os.open('code.py', os.O_RDONLY)])
parent.send(b'r')
parent.recv(1)
parent.send(json.dumps([tried(socket.recv_fds, right, 1, 1), tried(right.recvmsg, 1), len(right.recv(1))]).encode())
parent.recv(1)
"""
    with child(code, ONE, tmp_path) as (process, near):
        seal(process.pid, ONE)
        near.send(b"1")
        assert json.loads(near.recv(100)) == ["EPERM", "EPERM", 1]


HOPS = {
    "threads": """
def hop():
    look_up()
    threading.Thread(target=hop, daemon=True).start()
for _ in range(4): hop()
""",
    "processes": """
def hop():
    while True:
        look_up()
        if os.fork(): os._exit(0)
        os.setsid()
for _ in range(2):
    if os.fork() == 0: hop()
""",
    "brothers": """
def hop():
    clone = 56 if platform.machine() == 'x86_64' else 220
    while True:
        look_up()
        if library.syscall(clone, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0): os._exit(0)  # CLONE_PARENT
for _ in range(3):
    if os.fork() == 0: hop()
""",
    "programs": """
if len(sys.argv) == 2: parent.send(b'r')
os.execv(sys.executable, [sys.executable, '-I', '-S', 'code.py', sys.argv[1], 'again'])
""",
}


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.parametrize("hop", HOPS)
def test_what_never_comes_to_rest_is_sealed_or_ends_the_trial(hop: str, attempt: int, tmp_path: Path) -> None:
    with child(f"{HOPS[hop]}\nanswer()\n", ONE, tmp_path) as (process, near):
        started = time.monotonic()
        try:
            seal(process.pid, ONE, 1.0)
        except SealFault:
            assert time.monotonic() - started < 4.0
            return
        # A program that cannot be executed any more ends its process.
        with suppress(BrokenPipeError, ConnectionResetError):
            near.send(b"1")
            assert near.recv(100) in (b"0", b"")


@ALL
def test_a_sealed_child_computes_and_answers_and_starts_threads(level: IsolationLevel, tmp_path: Path) -> None:
    code = """
parent.send(b'r')
parent.recv(1)
found = []
def work(): found.append(sum(range(1000)))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
held = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
denied = {
    "open": tried(os.open, 'code.py', os.O_RDONLY), "stat": tried(os.stat, '.'), "list": tried(os.listdir, '/'),
    "link": tried(os.readlink, '/proc/self/exe'), "make": tried(os.mkdir, 'new'), "remove": tried(os.unlink, 'code.py'),
    "fork": tried(os.fork), "pipe": tried(os.pipe), "program": tried(os.execv, '/bin/true', ['true']),
    "memory": tried(os.memfd_create, 'x'), "shared": tried(mmap.mmap, -1, 4096), "socket": tried(socket.socketpair),
    "event": tried(os.eventfd, 0), "attribute": tried(os.getxattr, '.', 'user.x'),
    "cookie": tried(parent.getsockopt, socket.SOL_SOCKET, 57, 8),
}
parent.send(json.dumps([found, len(held), denied]).encode())
parent.recv(1)
"""
    with child(code, level, tmp_path) as (process, near):
        seal(process.pid, level)
        near.send(b"1")
        found, held, denied = json.loads(near.recv(1000))
    assert (found, held) == ([499500] * 3, 1 << 20)
    assert {name: answer for name, answer in denied.items() if answer not in ("ENOENT", "EPERM", "ENOTSUP")} == {}


def test_calls_that_wait_are_not_disturbed(tmp_path: Path) -> None:
    code = """
library.poll.restype = library.nanosleep.restype = ctypes.c_int
library.recv.restype = ctypes.c_ssize_t
found = {}
event, (left, right) = threading.Event(), socket.socketpair()
def poll(): found['poll'] = library.poll(None, 0, 700)
def nap(): found['nap'] = library.nanosleep(struct.pack('@ll', 0, 700_000_000), None)
def read(): found['read'] = library.recv(left.fileno(), ctypes.create_string_buffer(1), 1, 0)
def lock(): found['lock'] = event.wait(20)
threads = [threading.Thread(target=work) for work in (poll, nap, read, lock)]
for thread in threads: thread.start()
time.sleep(0.1)
parent.send(b'r')
parent.recv(1)
right.send(b'x')
event.set()
for thread in threads: thread.join()
parent.send(json.dumps(found).encode())
parent.recv(1)
"""
    with child(code, ONE, tmp_path) as (process, near):
        seal(process.pid, ONE)
        near.send(b"1")
        assert json.loads(near.recv(1000)) == {"poll": 0, "nap": 0, "read": 1, "lock": True}


def test_a_child_that_was_stopped_is_sealed_as_it_lies(tmp_path: Path) -> None:
    with child("parent.send(b'r')\nos.kill(os.getpid(), signal.SIGSTOP)\nanswer()\n", ONE, tmp_path) as (process, near):
        target = psutil.Process(sealing._Sealing(process.pid, ONE, 0.0).spine[-1])
        while target.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        seal(process.pid, ONE)
        while target.status() != psutil.STATUS_STOPPED:  # on its way back
            time.sleep(0.01)
        target.resume()
        assert near.recv(1) == b"r"
        near.send(b"1")
        assert json.loads(near.recv(100)) == 0


@ALL
def test_every_process_that_the_child_can_reach_has_the_filter(level: IsolationLevel, tmp_path: Path) -> None:
    with child("answer()\n", level, tmp_path) as (process, _):
        spine = sealing._Sealing(process.pid, level, 0.0).spine
        before = [filters_of(pid) for pid in spine]
        seal(process.pid, level)
        added = [filters_of(pid) - count for pid, count in zip(spine, before, strict=True)]
    # bwrap's first process inside lies within reach: its memory can be written to.
    assert added == {"bubblewrap": [0, 0, 1, 1]}.get(level, [0, 1])


TAKE_OVER = """
# access("/") without end, counting on the stack how often it succeeds:
loop = bytes.fromhex('b815000000 488d3d12000000 31f6 0f05 85c0 75ec 48ff842400fcffff ebe2 2f00')
stack, place = (int(word, 16) for word in open('/proc/1/syscall').read().split()[-2:])
memory = os.open('/proc/1/mem', os.O_RDWR)
os.pwrite(memory, bytes(8), stack - 1024)
os.pwrite(memory, loop, place)
def count(): return struct.unpack('=Q', os.pread(memory, 8, stack - 1024))[0]
if os.fork() == 0:
    if os.fork() == 0: os._exit(0)  # an orphan that ends wakes it
    os._exit(0)
while not count(): time.sleep(0.001)
"""


@pytest.mark.skipif("bubblewrap" not in LEVELS, reason="there is no bwrap here")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code that it writes is for x86-64")
def test_bwraps_first_process_looks_up_no_name_even_where_the_child_has_taken_it_over(tmp_path: Path) -> None:
    with child(f"{TAKE_OVER}\nanswer()\n", "bubblewrap", tmp_path) as (process, near):
        seal(process.pid, "bubblewrap")
        near.send(b"1")
        assert json.loads(near.recv(100)) == 0


def filters_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Seccomp_filters:")))


def test_a_child_cannot_put_a_filter_on_itself(tmp_path: Path) -> None:
    number = 317 if platform.machine() == "x86_64" else 277
    code = f"""
parent.send(b'r')
answer = library.syscall(ctypes.c_long({number}), 1, 0, None)
parent.send(json.dumps([answer, errno.errorcode[ctypes.get_errno()]]).encode())
parent.recv(1)
"""
    with child(code, ONE, tmp_path) as (_, near):
        assert json.loads(near.recv(100)) == [-1, "ENOSYS"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code that it runs is for x86-64")
def test_a_thread_that_asks_for_a_filter_while_it_is_held_gets_none(tmp_path: Path) -> None:
    code = """
page = mmap.mmap(-1, 4096, prot=7)
# seccomp(1, 0, filter) without end; the filter is one line that allows everything
page.write(bytes.fromhex('b83d010000 bf01000000 31f6 488d156d000000 0f05 ebe9'))
page.seek(128)
page.write(struct.pack('=HxxxxxxQ', 1, ctypes.addressof(ctypes.c_char.from_buffer(page)) + 192))
page.seek(192)
page.write(struct.pack('=Q', 0x7FFF0000 << 32 | 6))
loop = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
threading.Thread(target=loop, daemon=True).start()
time.sleep(0.05)
answer()
"""
    with child(code, ONE, tmp_path) as (process, near):
        target = sealing._Sealing(process.pid, ONE, 0.0).spine[-1]
        asking = max(int(path.name) for path in Path(f"/proc/{target}/task").iterdir())
        before = filters_of(asking)

        def hold() -> None:
            # As `Thread` does, but with time to reach the call before it is asked to stop.
            tracing._ptrace(tracing.SEIZE, asking, 0, tracing.OPTIONS)
            time.sleep(0.05)
            tracing._ptrace(tracing.INTERRUPT, asking, 0, 0)
            status = os.waitpid(asking, tracing.ALL_THREADS)[1]
            assert status >> 16 == tracing.EVENT_STOP
            tracing._ptrace(tracing.DETACH, asking, 0, 0)

        hold()
        time.sleep(0.05)
        assert filters_of(asking) == before
        seal(process.pid, ONE)
        near.send(b"1")
        assert json.loads(near.recv(100)) == 0
        assert filters_of(asking) == before + 1


def test_a_child_that_has_ended_cannot_be_sealed(tmp_path: Path) -> None:
    with child("parent.send(b'r')\nparent.recv(1)\n", ONE, tmp_path) as (process, near):
        near.send(b"1")
        process.process.wait()
        with pytest.raises(SealFault):
            seal(process.pid, ONE)


def test_it_is_said_why_nothing_can_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_calls, "why_unavailable", lambda: "this kernel has no seccomp filters")
    assert why_unsealed.__wrapped__(ONE) == "this kernel has no seccomp filters"
    monkeypatch.undo()
    monkeypatch.setattr(system_calls, "sealed_program", lambda _: b"")
    assert "a trial process cannot be sealed: the kernel takes no filter" in why_unsealed.__wrapped__(ONE)
