"""The processes of a trial, seen from the parent: how they are started, heard, limited and killed.

`Child` is one process behind its guard (see `core.trial.sandbox.guard`). `ProcessSupervisor` owns all of a trial's
children. It waits for their messages and their output, looks at the memory, processes and files that they take, and
leaves none of them behind, whatever happens. One thread does all this, so nothing here needs a lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from autoresearch.core.errors import TrialError
from autoresearch.core.events import MemoryUsed, Message, Spawned, TrialEvent, parse_line
from autoresearch.core.trial.child.channel import MESSAGES
from autoresearch.core.trial.descendants import descendants
from autoresearch.core.trial.host_memory import host_memory
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.request import TrialStatus
from autoresearch.core.trial.sandbox import guard
from autoresearch.core.trial.sandbox.environment import child_environment
from autoresearch.core.trial.sandbox.host_paths import gpu_nodes
from autoresearch.core.trial.sandbox.levels import ProcessSandbox, Sandbox
from autoresearch.core.trial.sandbox.system_calls import program_file

EVENT_LIMIT_BYTES = 1 << 16
"""Longest message in bytes."""
MESSAGES_AT_ONCE = 64
"""Messages taken from one read of a pipe, the last ones: an honest child sends some tens a second. The first message of
a child is never left out: it is sent before a train file is read, and says what the child computes on."""
KILL_SECONDS = 20.0
"""Seconds that a killed process may take to vanish: a GPU driver gives memory back slowly."""
OPEN_FILES = 4096
"""Files that one process may have open."""
PROCESS_LIMIT = 512
"""Processes below one child: data loaders and compilers take tens; a fork bomb takes them all."""
SILENT_ROLES = ("score", "audit")
"""Roles whose output is thrown away: they have seen held-out text, and run.log is shown to people and researchers."""
THREAD_LIMIT = 8192
"""Threads of all processes below one child: 64 each of 128 compilers. The system has room for 32,768 at least."""
DESCRIPTOR_LIMIT = 65_536
"""Files that all processes below one child may have open: the system has a limit for everybody together."""
MAPPING_LIMIT = 2**20
"""Memory mappings of all processes below one child: a framework's process has some thousands."""
FREE_SOCKETS, SOCKET_BYTES = 64, 2 * 212_992
"""Sockets that a child may have open for nothing, and what each further one counts: Linux's usual buffer, which the
filter of system calls lets nobody enlarge, and as much for what the kernel adds."""
FREE_PIPES, PIPE_BYTES = 1024, 8192
"""Pipes likewise: a user's have 64 MiB together, those beyond that two pages each."""
FREE_ANONYMOUS: Mapping[str, tuple[int, int]] = {
    "anon_inode:[eventpoll]": (64, OPEN_FILES * 200),
    "anon_inode:[landlock-ruleset]": (8, 2**23),
}
"""Objects of the kernel that are open files and hold memory which nothing shows: how many a child may have for nothing,
and what each further one counts. An epoll takes 200 bytes (epitem and its entry) for each file that it watches, a
ruleset 64 for each of 65,536 ports and as much for each file."""
MAPPING_SECONDS = 1.0
"""Seconds between two looks at the mappings of a child: each takes a millisecond for a framework's process."""
LOOKING_SHARE = 20
"""Factor by which the pause after such a look is longer than the look."""
FIRST_TO_GO = 1000
"""Score by which the kernel chooses a child when memory runs out, before anything of the user's."""
FILES_LIMIT = 100_000
"""Files in a child's work folder."""
PATH_LIMIT = 3000
"""Characters of a path below which files are counted. A deeper folder is refused: nobody could look into it."""
MEMORY_SHARE = 0.8
"""Share of the machine's memory that a child may take, where the request names no limit."""
TICK_SECONDS = 0.1
"""Longest wait for a message, in seconds."""
MEMORY_SECONDS = 0.2
"""Seconds between two looks at the memory: a child that allocates at 5 GB/s overshoots by 1 GB."""
MEMORY_EVENT_SECONDS = 2.0
"""Seconds between two events that say how much the train child takes."""
DISK_SECONDS = 1.0
"""Seconds between two looks at the files that a child has written."""


@dataclass(frozen=True)
class Launch:
    """Everything that the start of a child depends on."""

    role: str
    """"feed", "compile", "train", "steps", "score", "audit" or "probe"."""
    argv: Sequence[str]
    """Command of the child; "{events}" and "{job}" stand for the numbers of the inherited descriptors."""
    work: Path
    """The one folder that the child may write to."""
    job: Mapping[str, Any] = field(default_factory=dict)
    sandbox: Sandbox = field(default_factory=lambda: ProcessSandbox(filtered=False))
    """Isolation level; the default is for the core's own processes, which run no train file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The backend's variables, beside those that every child has."""
    descriptors: Sequence[int] = ()
    """Further descriptors that the child inherits under the same numbers."""
    read_only: Sequence[Path] = ()
    """Files that the child may read besides; they appear in its work folder."""
    file_limit_mb: int = 8192
    """Largest file that the child may write, in MiB."""


def _with_environment(extra: Mapping[str, str]) -> list[str]:
    """Return a command prefix that sets the backend's variables for the child alone.

    The guard and the sandbox before it must not have them. A preloaded OpenBLAS has threads, and bwrap, which copies
    itself without telling the C library, would wait for them for ever.
    """
    return ["/usr/bin/env", *(f"{name}={value}" for name, value in extra.items())] if extra else []


def worker_argv() -> list[str]:
    """Return the command of a child that runs a train file."""
    return [
        sys.executable,
        "-m",
        "autoresearch.core.trial.child.worker",
        "--job-fd",
        "{job}",
        "--events-fd",
        "{events}",
    ]


class Child:
    """A running process behind its guard."""

    def __init__(self, launch: Launch) -> None:
        """Start the process. Raises `TrialError` when the system refuses."""
        self.role = launch.role
        self.started = time.monotonic()
        self.work = launch.work
        self.processes = 0
        """Processes below the guard at the last measurement."""
        self.threads = 0
        """Threads of these processes."""
        self.descriptors = 0
        """Open files of these processes."""
        self.mappings = 0
        """Memory mappings of these processes."""
        self.shared_files = 0
        """Files in the /dev/shm that these processes have for themselves."""
        self.peak_rss_mb = 0.0
        self.given: frozenset[tuple[int, int]] = frozenset()
        """Files without a name that its parent has made, by device and inode: it does not take their memory."""
        self.nameless_mb = 0.0
        """Memory and disk in files that are open and have no name, in MiB: no look at folders or at memory shows it."""
        self._mapped: dict[tuple[int, int], int] = {}
        """Bytes of the files without a name that were mapped at the last look, by device and inode."""
        self._next_mappings = 0.0
        self._reader = MessageReader()
        self._seen: dict[int, psutil.Process] = {}
        with contextlib.ExitStack() as opened:
            try:
                self._start(launch, opened)
            except (OSError, subprocess.SubprocessError) as error:
                raise TrialError(f"the {launch.role} process cannot be started: {error}.") from error
            self._open = opened.pop_all()

    def _start(self, launch: Launch, opened: contextlib.ExitStack) -> None:
        self.events_fd, events = _pipe(opened)
        self.log_fd, log = _pipe(opened)
        with contextlib.ExitStack() as theirs, tempfile.TemporaryFile() as job:
            # The parent's copies of the writing ends: while one is open, the pipe never looks closed.
            theirs.callback(os.close, events)
            theirs.callback(os.close, log)
            # An unnamed file and not an argument: the job may be long, and other processes can read arguments.
            job.write(json.dumps(dict(launch.job)).encode())
            job.seek(0)
            numbers = {"{events}": str(events), "{job}": str(job.fileno())}
            inner = [*_with_environment(launch.environment), *(numbers.get(word, word) for word in launch.argv)]
            program = theirs.enter_context(program_file(gpu_nodes())) if launch.sandbox.filtered else None
            argv = launch.sandbox.wrap(inner, launch.work, launch.read_only, role=launch.role, filter_fd=program)
            options = [*_limits(launch)]
            options += ["--oom-score", str(FIRST_TO_GO)] if launch.role != "feed" else []  # which is trusted
            options += [*launch.sandbox.guard_options(launch.role, program)]
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *options, "--", *argv],
                stdin=subprocess.PIPE,  # the lifeline: the guard kills everything when it closes
                stdout=log,
                stderr=log,
                pass_fds=[events, job.fileno(), *launch.descriptors, *([] if program is None else [program])],
                cwd=launch.work,
                env=child_environment(
                    launch.sandbox.inside(launch.work, "home"),
                    launch.sandbox.inside(launch.work, "tmp"),
                ),
                start_new_session=True,
            )
        os.set_blocking(self.events_fd, False)
        os.set_blocking(self.log_fd, False)

    @property
    def pid(self) -> int:
        """Number of the guard, below which all the child's processes live."""
        return self.process.pid

    def returncode(self) -> int | None:
        """Return None while it runs, else the exit status as a shell gives it: 128 + n for signal n."""
        return self.process.poll()

    def read(self, fd: int) -> bytes | None:
        """Read at most 1 MiB from a pipe without waiting: None when there is nothing now, b"" when it is closed."""
        try:
            return os.read(fd, 1 << 20)
        except BlockingIOError:
            return None

    def parse(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes (see `MessageReader`)."""
        return self._reader.read(data)

    def measure_memory_mb(self, limit_mb: float = float("inf")) -> float:
        """Return the memory of all its processes in MiB; remember the peak, and every process seen.

        It is what is resident or swapped out, page tables, files without a name that are open or mapped, and what many
        sockets, pipes and epolls may hold. Above `limit_mb` a page that several processes share counts once: dozens of
        compiler processes share most of theirs. Counting so takes milliseconds for each process, so it is done only
        where it decides something.
        """
        total, threads, aside, shared, files = 0, 0, 0, 0, 0
        held = Held()
        started = time.monotonic()
        look = started >= self._next_mappings
        below = descendants(self.pid)
        self.processes = len(below)
        for process in below:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
                self._seen[process.pid] = process
            held.add_open(process.pid)
            if look:
                held.add_mapped(process.pid)
            found = status_of(process.pid)
            threads += found["Threads"] or _threads(process)
            aside += found["VmSwap"] + found["VmPTE"] + found["HugetlbPages"]
            shared += found["RssShmem"]
            files = max(files, shared_files(process.pid))
        for file in self.given:
            held.nameless.pop(file, None)
            held.mapped.pop(file, None)
        if look:
            self._mapped, self.mappings = held.mapped, held.mappings
            now = time.monotonic()
            # Dozens of compilers have hundreds of thousands: looking at them must not take a processor of its own.
            self._next_mappings = now + max(MAPPING_SECONDS, LOOKING_SHARE * (now - started))
        self.descriptors, self.shared_files = held.descriptors, files
        self.threads, self.nameless_mb = threads, sum(held.nameless.values()) / 2**20
        # What is mapped and has no name may be resident, and is then counted already.
        hidden = max(0, sum({**self._mapped, **held.nameless}.values()) - shared)
        more_mb = (aside + hidden + held.kernel_bytes()) / 2**20
        if total / 2**20 + more_mb > limit_mb:
            total = sum(proportional_bytes(process) for process in below)
        self.peak_rss_mb = max(self.peak_rss_mb, total / 2**20 + more_mb)
        return total / 2**20 + more_mb

    def cpu_seconds(self) -> float | None:
        """Return the processor time of all its processes, ended ones included; None where it cannot be told."""
        total, found = 0.0, False
        for process in descendants(self.pid):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                # Of children that have ended, their parent keeps the account.
                total += times.user + times.system + times.children_user + times.children_system
                found = True
        return total if found else None

    def kill(self) -> None:
        """Close the lifeline: the guard kills everything. Returns when nothing is left.

        Raises `TrialError` when the guard itself does not end, though killed.
        """
        if self.process.poll() is None:
            # A stopped guard would not notice that its lifeline has closed.
            self.process.send_signal(signal.SIGCONT)  # a child of the same user may have stopped it
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._sweep()  # the guard itself was stopped or is stuck
            self.process.kill()
            try:
                self.process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise TrialError(
                    f"the {self.role} process (number {self.pid}) was killed and is still there after "
                    f"{KILL_SECONDS:g} s: the system or a driver holds it.",
                    fix="wait until it is gone, or restart the machine, then give the same command again",
                ) from error
        self._sweep()

    def _sweep(self) -> None:
        """Kill what the guard cannot see: processes that left its session, where there is no adoption (macOS)."""
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                process.kill()  # psutil compares start times, so a reused number is left alone

    def close(self) -> None:
        """Kill the process and close its pipes. Raises as `kill` does."""
        try:
            self.kill()
        finally:
            self.close_pipes()

    def close_pipes(self) -> None:
        """Close this end of its pipes."""
        self._open.close()


KILLED = "was killed (SIGKILL), most likely by the system for lack of memory"
"""Words for a process that the system killed."""


def how_it_ended(status: int) -> str:
    """Say in words how a process ended, from its exit status; -n stands for signal n, too."""
    status = 128 - status if status < 0 else status
    if status == 128 + signal.SIGKILL:
        return KILLED
    if status > 128:
        try:
            return f"was ended by {signal.Signals(status - 128).name}"
        except ValueError:
            pass
    return f"ended by itself with exit status {status}"


def was_killed(status: int | None) -> bool:
    """Tell whether a signal ended a process, or its guard. `status` is None while it runs."""
    return status is not None and (status < 0 or status > 128)


def _limits(launch: Launch) -> list[str]:
    """Return the guard's limits: no core dumps, a cap on written files and on open ones.

    Address space is left alone, because CUDA reserves terabytes of it; memory in use is measured instead.
    """
    return ["CORE=0", f"FSIZE={launch.file_limit_mb * 2**20}", f"NOFILE={OPEN_FILES}"]


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    """Make a pipe whose reading end is closed with `opened`; the writing end is the caller's to close."""
    reader, writer = os.pipe()
    opened.callback(os.close, reader)
    return reader, writer


class TrialCancelled(TrialError):  # noqa: N818  (it is the name of the interface)
    """The trial was stopped before its end, and no process of it is left."""


class TrialInterrupted(TrialError):  # noqa: N818  (likewise)
    """A process of the core's own was killed during the trial. That says nothing about the train file."""


class TrialEnded(Exception):  # noqa: N818
    """The trial is over with a status other than ok. `run_trial` catches this; nobody else sees it."""

    def __init__(self, status: TrialStatus, reason: str) -> None:
        super().__init__(reason)
        self.status: TrialStatus = status
        self.reason = reason


class ProcessSupervisor:
    """Owns every process of a trial. Leaving its context kills and reaps them all."""

    def __init__(
        self, record: Record, *, memory_limit_mb: int | None, disk_limit_mb: int, cancel: threading.Event | None
    ) -> None:
        self.record = record
        self.disk_limit_mb = disk_limit_mb
        self._next_disk = 0.0
        self.memory_limit_mb = memory_limit_mb or int(MEMORY_SHARE * host_memory().total / 2**20)
        self._cancel = cancel
        # Not an epoll: all processes of a user share a number of files that epolls may watch, and a child may take it.
        self._selector = selectors.PollSelector()
        self._children: list[Child] = []
        self._messages: list[tuple[Child, Message]] = []
        self._next_memory = self._next_said = 0.0

    def __enter__(self) -> ProcessSupervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in list(self._children):
            with contextlib.suppress(TrialError):
                self.end(child)
        self._selector.close()

    def start(self, launch: Launch) -> Child:
        """Start a process and listen to it. Raises `TrialError` when the system refuses."""
        child = Child(launch)
        self._children.append(child)
        self._selector.register(child.events_fd, selectors.EVENT_READ, lambda: self._hear(child))
        self._selector.register(child.log_fd, selectors.EVENT_READ, lambda: self._copy_log(child))
        self.record.event(Spawned(child.role, (child.pid,), launch.sandbox.level))
        return child

    def end(self, child: Child) -> list[Message]:
        """Kill a process with all below it. Returns the messages of it that `step` has not returned.

        Raises `TrialError` when it cannot be killed.
        """
        # Out of the list first: a child that cannot be killed must not be tried again when the trial is left.
        self._children.remove(child)
        try:
            child.kill()
            # A pipe keeps what was written before the end; it is read until it is closed or empty.
            for fd, drain in ((child.events_fd, self._hear), (child.log_fd, self._copy_log)):
                while fd in self._selector.get_map() and drain(child):
                    pass
        finally:
            for fd in (child.events_fd, child.log_fd):
                if fd in self._selector.get_map():
                    self._selector.unregister(fd)
            child.close_pipes()
        mine = [event for owner, event in self._messages if owner is child]
        self._messages = [(owner, event) for owner, event in self._messages if owner is not child]
        return mine

    def step(self, deadline: float) -> list[tuple[Child, Message]]:
        """Wait a moment, at most until `deadline` (monotonic seconds), and return the messages that arrived.

        Raises `TrialCancelled`, or `TrialEnded` when a child takes more memory, processes or disk than it may.
        """
        timeout = min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))
        # Every call handles what is ready now and returns: nothing that a child sends can keep this thread in one
        # place.
        for key, _ in self._selector.select(timeout):
            key.data()
        if self._cancel is not None and self._cancel.is_set():
            raise TrialCancelled("the trial was cancelled.")
        # On every step and not by a timer: a child cannot keep this from happening by saying a lot.
        if time.monotonic() >= self._next_memory:
            self._check_memory()
            self._next_memory = time.monotonic() + MEMORY_SECONDS
        if time.monotonic() >= self._next_disk:
            self._check_disk()
            self._next_disk = time.monotonic() + DISK_SECONDS
        events, self._messages = self._messages, []
        return events

    def listen(self, fileobj: Any, events: int, callback: Callable[[], object]) -> None:
        """Call `callback` from `step` when a socket is ready."""
        self._selector.register(fileobj, events, callback)

    def ignore(self, fileobj: Any) -> None:
        """Undo `listen`."""
        self._selector.unregister(fileobj)

    def _check_memory(self) -> None:
        for child in self._children:
            used = child.measure_memory_mb(self.memory_limit_mb)
            if child.role == "train" and time.monotonic() >= self._next_said:
                self.record.event(MemoryUsed(round(used)))
                self._next_said = time.monotonic() + MEMORY_EVENT_SECONDS
            # The feeder is trusted, and its memory is the corpus mapped from disk.
            if child.role != "feed" and used > self.memory_limit_mb:
                raise TrialEnded(
                    "crash",
                    f"out of memory: the {child.role} process took {used:.0f} MiB of host memory; "
                    f"the limit is {self.memory_limit_mb} MiB",
                )
            if child.processes > PROCESS_LIMIT:
                words = f"the {child.role} process started {child.processes} others; the limit is {PROCESS_LIMIT}"
                raise TrialEnded("crash", words)
            if child.role == "feed":
                continue
            for done, count, most in (
                ("started {} threads", child.threads, THREAD_LIMIT),
                ("has {} files open", child.descriptors, DESCRIPTOR_LIMIT),
                ("has {} memory mappings", child.mappings, MAPPING_LIMIT),
                ("has {} files in /dev/shm", child.shared_files, guard.SHARED_FILES),
            ):
                if count > most:
                    words = f"the {child.role} process {done.format(count)}; the limit is {most}"
                    raise TrialEnded("crash", words)

    def _check_disk(self) -> None:
        for child in self._children:
            files, size_mb = disk_use(child.work, FILES_LIMIT)
            size_mb += child.nameless_mb
            if files > FILES_LIMIT or size_mb > self.disk_limit_mb:
                raise TrialEnded(
                    "crash",
                    f"the {child.role} process filled the disk: {files} files, {size_mb:.0f} MiB; "
                    f"the limits are {FILES_LIMIT} and {self.disk_limit_mb} MiB",
                )

    def _hear(self, child: Child) -> bool:
        data = self._read(child, child.events_fd)
        self._messages += [(child, event) for event in child.parse(data)]
        return bool(data)

    def _copy_log(self, child: Child) -> bool:
        data = self._read(child, child.log_fd)
        if data and child.role not in SILENT_ROLES:
            self.record.log(data)
        return bool(data)

    def _read(self, child: Child, fd: int) -> bytes:
        data = child.read(fd)
        if data == b"":
            self._selector.unregister(fd)
        return data or b""


def disk_use(folder: Path, limit: int) -> tuple[int, float]:
    """Count the files below a folder, and their size on disk in MiB.

    Follows no link, and stops above `limit` files. A folder whose path is longer than `PATH_LIMIT` counts as too many.
    """
    files, size = 0, 0
    waiting = [str(folder)]
    while waiting and files <= limit:
        path = waiting.pop()
        if len(path) > len(str(folder)) + PATH_LIMIT:
            return limit + 1, size / 2**20
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if files > limit:
                        break
        except OSError:
            continue  # it was removed meanwhile, or the child has locked its own folder
    return files, size / 2**20


def proportional_bytes(process: psutil.Process) -> int:
    """Return a process's memory in bytes, a page shared by n processes counting 1 / n; what is resident where the
    system does not tell, 0 for a process that is gone.
    """
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # no Linux, an old kernel, or a process that does not let itself be looked into
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def status_of(pid: int) -> dict[str, int]:
    """Return the threads of a process, bytes of it that are not in its resident memory (swapped out, page tables, huge
    pages of their own), and the bytes of files in memory that are. Zeros where there is no /proc.
    """
    found = dict.fromkeys(("Threads", "VmSwap", "VmPTE", "HugetlbPages", "RssShmem"), 0)
    try:
        content = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return found
    # The first line is the name that the process has given itself. It may look like any other line, and hold what
    # Python takes for the end of one; only the kernel's own line feed is none of it.
    for line in content.split(b"\n")[1:]:
        key, _, value = line.partition(b":")
        name = key.decode("ascii", errors="replace")
        if name in found and (number := value.split()[:1]) and number[0].isdigit():
            found[name] = int(number[0]) * (1 if name == "Threads" else 1024)
    return found


def shared_files(pid: int) -> int:
    """Count the files in a process's /dev/shm, itself included; 0 where it is this process's own, or cannot be asked.

    Bubblewrap limits the bytes of that folder and not its files, and an empty file has memory of the kernel's alone.
    """
    try:
        # By the process's own root: its /dev/shm is mounted for it and its relatives alone.
        if os.stat(f"/proc/{pid}/root/dev/shm").st_dev == os.stat("/dev/shm").st_dev:  # noqa: PTH116
            return 0
        found = os.statvfs(f"/proc/{pid}/root/dev/shm")
    except OSError:
        return 0
    return found.f_files - found.f_ffree


def _threads(process: psutil.Process) -> int:
    """Return a process's threads as psutil counts them; 0 for one that is gone."""
    with contextlib.suppress(psutil.Error):
        return int(process.num_threads())
    return 0


class MessageReader:
    """Reads the messages of one child from the bytes of its pipe."""

    def __init__(self) -> None:
        self._pending = b""
        self._heard = False
        """True once a whole line has come."""

    def read(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes. What is none of `MESSAGES`, malformed, or too much is skipped."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > EVENT_LIMIT_BYTES:
            self._pending = b""  # a line without end must not fill the parent's memory
        taken = lines[-MESSAGES_AT_ONCE:]
        if not self._heard and len(lines) > MESSAGES_AT_ONCE:
            taken = [lines[0], *taken]
        self._heard = self._heard or bool(lines)
        short = [line for line in taken if len(line) <= EVENT_LIMIT_BYTES]
        return [untagged(message) for line in short if (message := parse_line(line, MESSAGES)) is not None]


def untagged(message: Message) -> Message:
    """Take off what only the parent may say of an event: its time, its trial and its experiment."""
    return replace(message, experiment=None, k=None, t=None) if isinstance(message, TrialEvent) else message


class Held:
    """Memory and files of processes that folders and resident memory do not show. Empty where there is no /proc."""

    def __init__(self) -> None:
        self.nameless: dict[tuple[int, int], int] = {}
        """Bytes of the plain files that are open and have no name, by device and inode: files that were removed, and
        memory that was made a file (memfd_create)."""
        self.mapped: dict[tuple[int, int], int] = {}
        """Bytes of mappings of files without a name: memory that stays when its pages are given back."""
        self.descriptors = self.mappings = 0
        """Open files, and memory mappings; beyond their limits they are counted and not looked at."""
        self._sockets: set[int] = set()
        self._pipes: set[int] = set()
        self.kernel_objects = dict.fromkeys(FREE_ANONYMOUS, 0)
        """Number of open objects of each kind in `FREE_ANONYMOUS`."""

    def add_open(self, pid: int) -> None:
        """Look at the open files of a process."""
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208  (names alone)
        except OSError:
            return
        self.descriptors += len(numbers)
        for number in numbers if self.descriptors <= DESCRIPTOR_LIMIT else ():
            with contextlib.suppress(OSError):
                facts = os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116  (the file behind the link)
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
                    self.nameless[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
                elif stat.S_ISSOCK(facts.st_mode):
                    self._sockets.add(facts.st_ino)
                elif stat.S_ISFIFO(facts.st_mode):
                    self._pipes.add(facts.st_ino)
                elif not stat.S_IFMT(facts.st_mode):  # all of them are one inode, so each descriptor counts
                    name = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115  (a path would take longer)
                    if name in self.kernel_objects:
                        self.kernel_objects[name] += 1

    def add_mapped(self, pid: int) -> None:
        """Look at the mappings of a process. What of a mapping is in use cannot be told, so all of it counts."""
        if self.mappings > MAPPING_LIMIT:
            return
        try:
            # A file's name may hold anything but a line feed, which the kernel writes in another way.
            lines = Path(f"/proc/{pid}/maps").read_bytes().split(b"\n")
        except OSError:
            return
        self.mappings += len(lines)
        mine: dict[tuple[int, int], int] = {}
        for line in lines:
            if not line.endswith(b" (deleted)"):
                continue
            # A private mapping keeps the file, too, and so its memory or its place on the disk.
            span, _, _, device, inode = line.split(maxsplit=5)[:5]
            start, _, end = span.partition(b"-")
            major, _, minor = device.partition(b":")
            key = os.makedev(int(major, 16), int(minor, 16)), int(inode)
            mine[key] = mine.get(key, 0) + int(end, 16) - int(start, 16)
        for key, size in mine.items():
            self.mapped[key] = max(self.mapped.get(key, 0), size)

    def kernel_bytes(self) -> int:
        """Return the memory that sockets, pipes, epolls and rulesets may hold, beyond as many as a framework opens."""
        open_files = [(len(self._sockets), FREE_SOCKETS, SOCKET_BYTES), (len(self._pipes), FREE_PIPES, PIPE_BYTES)]
        open_files += [(self.kernel_objects[name], *limit) for name, limit in FREE_ANONYMOUS.items()]
        return sum(max(0, count - free) * size for count, free, size in open_files)
