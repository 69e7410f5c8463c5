"""Put a second filter of system calls on a child that runs already, before it sees held-out text (Linux).

The kernel remembers every name that was looked up, also in folders that all children share, and the time of the next
look tells whether it does. A score process that has seen the text could leave a token's number there for the audit
process. So from the moment at which it is given the text, it may look up no name (see `system_calls.sealed_rules`).
The same holds for pages of shared files that are not in memory yet. It can still read the files that it has open or
mapped, so those are read into memory as a whole before (see `page_cache`), while it is stopped: on a slow disk that
takes minutes, in which a train file could learn without a clock. A file that is on its way through a socket is in no
list, and the filter lets nobody take it out.

A framework must look up names until its model is compiled and its weights are loaded, so the filter cannot be there
from the start. And a train file that fights back may not be asked to install it. The parent does: it stops every thread
of the child, ends every process beside it, and has one of the stopped threads make the call (see `tracing`). Then
nothing of the child is left that could run without the filter.

How it is known that nothing is left: threads that are stopped start no others, so the process is at rest once the
kernel counts as many threads as are held. Its other children, and the orphans that its guard or bwrap's first process
adopts, stand in the kernel's lists. A process can leave the first list for the second and never the other way. Whatever
is empty stays empty when the lists are read in this order. A process that has ended stays in its list until it is
collected, and what it leaves behind is added at the list's end before it counts as ended. So a list is empty when all
in it have ended, and reading it again shows nothing new.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial.page_cache import CacheFault, FileId, fill
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox import guard, system_calls
from autoresearch.core.trial.sandbox.levels import Sandbox, open_sandbox
from autoresearch.core.trial.sandbox.tracing import Thread, TracingFault, UnusableThread, this_machine

SEAL_SECONDS = 10.0
"""Seconds in which a child must come to rest: it takes milliseconds, but a stalled machine must not end a trial."""
FILL_SECONDS = 120.0
"""Seconds that reading its files may take then: on a slow disk, the framework's libraries are a gigabyte."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LONGER = 0.0002, 0.02, 1.1
"""Seconds between two looks at threads and processes that have not come to rest, at first and at most, and how much
longer each pause is than the one before. On a busy processor they need a turn to stop, or to end, and a parent that
looks all the time takes it from them."""
PROBE_SECONDS = 20.0
HELPERS: dict[IsolationLevel, int] = {"bubblewrap": 2}
"""Processes of the level's own program between the guard and the child: bwrap outside its namespaces, and inside. The
last can be reached by the child, which may write to its memory."""
STATE, THREADS = 0, 17
"""Places in /proc/N/stat, counted from behind the name: the state and the number of threads (proc(5))."""
ENDED = (b"Z", b"X")
SEALED_DEVICES = ("cpu", "numpy")
"""Kinds of device on which a child is sealed: a GPU's driver opens files when it needs them."""
TRACES = "a file that is scored can leave traces for a later process in the names that it looks up"
PROBE = """
import os, sys
fd = int(sys.argv[1])
os.write(fd, b"1")
os.read(fd, 1)
try:
    os.stat("/")
except FileNotFoundError:
    os.write(fd, b"1")
"""
"""A child that says whether it can still look up a name."""


class SealFault(RuntimeError):  # noqa: N818
    """A child that could not be sealed, with the reason in words. It may be traced still, and must be ended."""


def seal(guard_pid: int, level: IsolationLevel, seconds: float = SEAL_SECONDS) -> float:
    """Put the second filter on the child behind a guard, and end every process beside it. Raises `SealFault`.

    Returns the seconds in which the child could still run, until all of it was stopped: those are on its clock. What
    comes after (reading its files into the page cache among others) is not. When the child does not come to rest within
    `seconds`, it is killed or must be.
    """
    found: list[BaseException | None] = []
    started = time.monotonic()
    try:
        sealing = _Sealing(guard_pid, level, started + seconds)
    except (FileNotFoundError, ProcessLookupError) as gone:
        raise SealFault("it has ended") from gone

    def work() -> None:
        try:
            sealing.run()
        except BaseException as error:
            found.append(error)
        else:
            found.append(None)
        finally:
            sealing.at_rest.set()

    # In a thread of its own. A request to the kernel may wait without end, for one where the process executes another
    # program at that moment, until that process is killed. When the thread ends, the kernel kills what it still holds.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    if sealing.at_rest.wait(seconds + 1.0):
        thread.join(FILL_SECONDS + seconds)
    if not found:
        raise SealFault("it does not let itself be stopped")
    if isinstance(found[0], SealFault | TracingFault | CacheFault):
        raise SealFault(str(found[0])) from found[0]
    if isinstance(found[0], OSError):
        raise SealFault(f"the system refuses ({found[0]})") from found[0]
    if found[0] is not None:
        raise found[0]
    return sealing.rested - started


class _Sealing:
    """One sealing under way."""

    def __init__(self, guard_pid: int, level: IsolationLevel, limit: float) -> None:
        self.limit = limit
        self.rested = limit
        """Moment at which nothing of the child ran any more, in monotonic seconds."""
        self.at_rest = threading.Event()
        """Set at that moment, or when there will be none."""
        self.spine, self.targets = _targets(guard_pid, level)
        self.threads: dict[int, dict[int, Thread]] = {pid: {} for pid in self.targets}

    def run(self) -> None:
        """Stop and end what runs, fill the page cache, install, and let go."""
        pause = PAUSE_SECONDS
        while True:
            # Both each time: a thread may wait for a process that must be ended. And in this order: what no thread is
            # left to start does not come back.
            stopped = self._all_stopped()
            if self._alone() and stopped:
                break
            if time.monotonic() > self.limit:
                raise SealFault("its threads and processes do not come to rest")
            time.sleep(pause)
            pause = min(LONGER * pause, LONGEST_PAUSE_SECONDS)
        self.rested = time.monotonic()
        self.at_rest.set()
        # At rest, what it has opened or mapped is all that it can read from now on.
        filled: set[FileId] = set()
        for pid in self.targets:
            fill(pid, self.rested + FILL_SECONDS, filled)
        program = system_calls.sealed_program(platform.machine())
        for pid in self.targets:
            self._install(pid, program)
        for held in self.threads.values():
            for thread in held.values():
                thread.release()

    def _all_stopped(self) -> bool:
        """Take hold of every thread that is not held yet; say whether all have stopped, and no other is left."""
        still = True
        for pid, held in self.threads.items():
            try:
                names = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (names alone)
            except OSError:
                raise SealFault("it has ended") from None
            for tid in map(int, names):
                if tid not in held:
                    self._hold(pid, tid)
            for tid, thread in list(held.items()):
                try:
                    still = thread.look() and still
                except ProcessLookupError:
                    del held[tid]
                    still = False
            still = still and self._count(pid) == len(held)
        return still

    def _hold(self, pid: int, tid: int) -> None:
        """Take hold of a thread, unless it has ended: a first one that has left the others behind stays in the list."""
        try:
            self.threads[pid][tid] = Thread(tid)
        except ProcessLookupError:
            pass
        except PermissionError:
            if _state(f"/proc/{pid}/task/{tid}") not in ENDED:
                raise

    def _count(self, pid: int) -> int:
        """Return how many threads of a process are left that run or could."""
        fields = _stat(f"/proc/{pid}")
        # A first thread that has ended counts until all the others have.
        return int(fields[THREADS]) - (fields[STATE] in ENDED)

    def _alone(self) -> bool:
        """Kill every other process of the child; say whether none was left."""
        alone = True
        # The order matters: what its parent leaves behind goes to a process that is read later.
        for parent in reversed(self.spine):
            others = self._others(parent)
            ended = all(_has_ended(pid) for pid in others)
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # One that ran when the list was read, and had ended when it was looked at, may have left another one. That
            # one stands in the list by now. And one that its parent has collected meanwhile may have hidden another.
            same = self._others(parent) == others and all(Path(f"/proc/{pid}").exists() for pid in others)
            alone = alone and ended and same
        return alone

    def _others(self, parent: int) -> list[int]:
        """Return the children of a process of the spine, without the one that belongs to the spine."""
        own = self.spine[self.spine.index(parent) + 1 :][:1]
        return [pid for pid in _children(parent) if pid not in own]

    def _install(self, pid: int, program: bytes) -> None:
        """Install the filter through the first thread that lets itself be used."""
        why: TracingFault | None = None
        for thread in self.threads[pid].values():
            try:
                with thread.borrowed() as caller:
                    caller.install_filter(program)
            except UnusableThread as fault:
                why = fault
            else:
                return
        raise why or SealFault("no thread of it is left")


def _targets(guard_pid: int, level: IsolationLevel) -> tuple[list[int], list[int]]:
    """Return the processes from the guard to the child, and those of them to be sealed, the child last.

    The first are the guard, the processes of the level's own program, and the child: each the first one that the
    process before it has started. Sealed are the child and the one of the helpers that it can reach.
    """
    spine = [guard_pid]
    for _ in range(HELPERS.get(level, 0) + 1):
        below = _children(spine[-1])
        if not below:
            raise SealFault("it has ended")
        spine.append(below[0])
    return spine, spine[-2:] if level in HELPERS else spine[-1:]


def _children(pid: int) -> list[int]:
    """Return the children of a process that have not been collected, in the order in which they came."""
    found: list[int] = []
    for task in sorted(map(int, os.listdir(f"/proc/{pid}/task"))):  # noqa: PTH208  (names alone)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_bytes().split())
    return found


def _has_ended(pid: int) -> bool:
    """Say whether no thread of a process is left: the first may have ended before the others."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (names alone)
    except OSError:
        return True
    return len(tasks) == 1 and _state(f"/proc/{pid}") in ENDED


def _state(place: str) -> bytes:
    try:
        return _stat(place)[STATE]
    except OSError:
        return ENDED[1]


def _stat(place: str) -> list[bytes]:
    """Return the fields of a process or thread behind its name, which may hold any character."""
    return Path(f"{place}/stat").read_bytes().rpartition(b")")[2].split()


@functools.cache
def why_unsealed(level: IsolationLevel) -> str | None:
    """Say why no child at that level can be sealed here; None where one can. Asked once per process, by sealing one."""
    if (why := system_calls.why_unavailable()) is not None:
        return why
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return "this kernel keeps no list of a process's children"
    try:
        this_machine()
        _probe(open_sandbox(level))
    except (OSError, subprocess.SubprocessError, PrerequisiteError, SealFault, TracingFault) as error:
        return f"a trial process cannot be sealed: {error}"
    return None


def warning_for_names(level: IsolationLevel) -> str | None:
    """Say before a run what it means that no child can be sealed here; None where one can, and where there is no Linux.

    That no child on a GPU is sealed, and none on macOS, is said in the documentation.
    """
    why = why_unsealed(level) if sys.platform == "linux" else None
    return None if why is None else f"{TRACES}: {why}"


def _probe(sandbox: Sandbox) -> None:
    """Seal a process that does nothing else. Raises `SealFault`, OSError or SubprocessError."""
    with contextlib.ExitStack() as opened:
        work = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        for name in ("home", "tmp"):
            (work / name).mkdir()
        program = opened.enter_context(system_calls.program_file(()))
        near, far = (opened.enter_context(one) for one in socket.socketpair())
        near.settimeout(PROBE_SECONDS)
        inner = [sys.executable, "-I", "-S", "-c", PROBE, str(far.fileno())]
        argv = sandbox.wrap(inner, work, role="probe", filter_fd=program)
        process = opened.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *sandbox.guard_options("probe", program), "--", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[far.fileno(), *([] if program is None else [program])],
                cwd=work,
                start_new_session=True,
            )
        )
        far.close()
        try:
            if near.recv(1) != b"1":
                raise SealFault("it does not start")
            seal(process.pid, sandbox.level)
            near.send(b"1")
            if near.recv(1) != b"1":
                raise SealFault("it still looks up names")
        finally:
            # Its lifeline: the guard ends what is left.
            if process.stdin is not None:
                process.stdin.close()
