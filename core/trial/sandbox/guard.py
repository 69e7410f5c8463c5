"""The process between `ar` and a child, which makes sure that nothing of the child survives.

It runs as a script with `python -I -S`, imports only the standard library, and starts in about 15 ms:

    guard.py [LIMIT=VALUE ...] -- ARGV...

Standard input is the lifeline: `ar` alone holds its other end. When it closes (because `ar` wants the child gone, or
because `ar` itself was killed), or when the child ends, the guard kills every descendant and exits with the child's
status (128 + n for signal n). On Linux it also finds descendants that left the session or whose parent died, because it
adopts them; elsewhere it finds only the child's process group.

A child of the same user can kill the guard first. Only a process namespace prevents that (see `levels`).
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
"""prctl: send this process a signal when its parent ends."""
PR_SET_CHILD_SUBREAPER = 36
"""prctl: become the parent of descendants whose own parent has ended."""
LINUX = sys.platform == "linux"


def main(argv: list[str]) -> int:
    """Run ARGV under the limits until it ends or the lifeline closes, and return its exit status."""
    split = argv.index("--")
    limits = dict(item.split("=", 1) for item in argv[:split])
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    # SIGCHLD must wake the `select` in `wait`. The handler does nothing; the wakeup descriptor makes the pipe readable.
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
    """Fork and execute ARGV in a session of its own, under the limits, with no standard input; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if LINUX:  # so that the child ends even when the guard is killed and cannot do it
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
        os._exit(127)  # whatever happened, this copy of the guard must not go on as one


def lower(kind: int, value: int) -> None:
    """Set a resource limit, soft and hard, at most to the hard limit in force."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def wait(child: int, wake: int) -> int:
    """Wait until the child ends or the lifeline closes, and return the child's status as a shell gives it."""
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
    """Collect every process that has ended, adopted ones included.

    Returns (child, status) when the child is among them, else (0, 0).
    """
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
    """Kill every descendant, again and again until none is left: a process may be forking meanwhile."""
    if not LINUX:
        try:
            os.killpg(child, signal.SIGKILL)  # nothing of `ar` can be imported here, `kill_group` neither
        except (ProcessLookupError, PermissionError):
            pass
        reap(child)
        return
    # A killed process whose own children live leaves them to this guard, so each round sees all that is left.
    while pids := descendants(os.getpid()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        reap(child)
        time.sleep(0.001)


def descendants(root: int) -> list[int]:
    """Return the number of every process below `root`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  (pathlib is slower to start)
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_bytes()
            except OSError:
                continue
            # "pid (command) state parent ...". The command may contain brackets and spaces: read behind the last one.
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
    """Return the descriptors that are open in this process."""
    folder = "/proc/self/fd" if LINUX else "/dev/fd"
    return [int(name) for name in os.listdir(folder) if name.isdigit() and is_open(int(name))]  # noqa: PTH208


def is_open(fd: int) -> bool:
    """Say whether a descriptor is still open: the one that listed the folder is not."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def prctl(option: int, value: int) -> None:
    """Call Linux's prctl(2), which the standard library does not offer."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
