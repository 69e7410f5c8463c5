"""The process that stands between `ar` and a child, and sees to it that nothing of the child survives.

Run as a script with `python -I -S`, so it imports little and starts in about 15 ms:

    guard.py [LIMIT=VALUE ...] -- ARGV...

Standard input is the lifeline: the other end is held by `ar` alone. When it closes (because `ar` wants the child
gone, or because `ar` itself was killed), or when the child ends, every descendant is killed, and then the guard
exits with the child's status (128 + n for signal n). Descendants that left the session or whose parent died are found
too on Linux, where the guard adopts them; elsewhere only the child's process group is.

It does not protect against a child of the same user that kills the guard first; a process namespace does.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"


def main(argv: list[str]) -> int:
    """Run ARGV under the limits until it ends or the lifeline closes; return its exit status."""
    split = argv.index("--")
    limits = dict(item.split("=", 1) for item in argv[:split])
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = spawn(argv[split + 1 :], limits)
    # Held here, the child's sockets and pipes would look open to the other side after its death.
    keep = {wake_r, wake_w}
    for fd in open_descriptors():
        if fd > 2 and fd not in keep:
            os.close(fd)
    status = wait(child, wake_r)
    kill_descendants(child)
    return status


def spawn(argv: list[str], limits: dict[str, str]) -> int:
    """Fork and execute ARGV in its own session, under the limits, with no standard input."""
    child = os.fork()
    if child:
        return child
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if LINUX:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for name, value in limits.items():
            lower(getattr(resource, f"RLIMIT_{name}"), int(value))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.execvp(argv[0], argv)
    except BaseException as error:
        os.write(2, f"guard: cannot start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def lower(kind: int, value: int) -> None:
    """Set a resource limit, never above the hard limit in force."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def wait(child: int, wake: int) -> int:
    """Until the child ends or the lifeline closes; the child's status as a shell would say it."""
    while True:
        pid, status = reap(child)
        if pid:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready and not os.read(0, 4096):
            return 128 + signal.SIGKILL


def reap(child: int) -> tuple[int, int]:
    """Collect every process that ended; (child, status) when the child is among them, else (0, 0)."""
    found = (0, 0)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = (pid, status)


def kill_descendants(child: int) -> None:
    """SIGKILL, again and again until nothing is left: a process may be forking meanwhile."""
    if not LINUX:
        try:
            os.killpg(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        reap(child)
        return
    while pids := descendants(os.getpid()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        reap(child)
        time.sleep(0.001)


def descendants(root: int) -> list[int]:
    """Every process below `root`, from /proc. The command may hold spaces and brackets: read from its last bracket."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  (pathlib is slower to start)
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_bytes()
            except OSError:
                continue
            parent = int(stat[stat.rindex(b")") + 1 :].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    front = [root]
    while front:
        below = children.get(front.pop(), [])
        found += below
        front += below
    return found


def open_descriptors() -> list[int]:
    """Descriptors open in this process."""
    folder = "/proc/self/fd" if LINUX else "/dev/fd"
    return [int(name) for name in os.listdir(folder) if name.isdigit() and is_open(int(name))]  # noqa: PTH208


def is_open(fd: int) -> bool:
    """Whether it is still open: the listing's own descriptor is not."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def prctl(option: int, value: int) -> None:
    """Linux prctl(2), which the standard library does not offer."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
