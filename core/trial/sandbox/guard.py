"""The process between `ar` and a child, which makes sure that nothing of the child survives.

It runs as a script with `python -I -S`, imports only the standard library, and starts in about 15 ms:

    guard.py [LIMIT=VALUE ...] [--filter FD | --filter-later FD] [--shared-memory BYTES] [--oom-score N] -- ARGV...

`--filter` installs the seccomp program that lies in the file FD, and denies the child every signal to the guard and to
`ar`. `--filter-later` denies the signals, and leaves the program to ARGV, which restricts itself first.
`--shared-memory` gives the child a /dev/shm of its own, in a mount namespace. `--oom-score` makes it the first that the
kernel ends when memory runs out. A child that cannot be restricted is not started (status 127).

Standard input is the lifeline: `ar` alone holds its other end. When it closes (because `ar` wants the child gone, or
because `ar` itself was killed), or when the child ends, the guard kills every descendant and exits with the child's
status (128 + n for signal n). On Linux it also finds descendants that left the session or whose parent died, because it
adopts them; elsewhere it finds only the child's process group.

The guard opens what it needs before the child starts: it kills by a list of children that it reads from an open
descriptor, so that a child cannot starve it. Without a filter, a process namespace or landlock's scopes, a child of the
same user can still kill the guard itself first.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import sys
import time

PR_SET_PDEATHSIG = 1
"""prctl: send this process a signal when its parent ends."""
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS, NO_CAPABILITIES_FOR_ROOT = 28, 0b101111
"""SECBIT_NOROOT, NO_SETUID_FIXUP and KEEP_CAPS off, each locked."""
PR_SET_CHILD_SUBREAPER = 36
"""prctl: become the parent of descendants whose own parent has ended."""
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES = 64
"""More than any kernel has."""
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000
KEYCTL_JOIN_SESSION_KEYRING = 1
SHARED_FILES = 2**14
"""Files in a child's /dev/shm. Even an empty one takes a kilobyte of memory, which no process is charged for."""
NUMBERS = {"x86_64": (250, (62, 234)), "aarch64": (219, (129, 131))}
"""Machine -> the system calls keyctl, and (kill, tgkill)."""
LINUX = sys.platform == "linux"
OPTIONS = ("--filter", "--filter-later", "--shared-memory", "--oom-score")


def main(argv: list[str]) -> int:
    """Run ARGV under the limits until it ends or the lifeline closes, and return its exit status."""
    split = argv.index("--")
    given = list(argv[:split])
    options = {name: int(given.pop(given.index(name) + 1)) for name in OPTIONS if name in given}
    limits = dict(item.split("=", 1) for item in given if item not in OPTIONS)
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    # SIGCHLD must wake the `select` in `wait`. The handler does nothing; the wakeup descriptor makes the pipe readable.
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the lifeline alone ends it
    # Opened before the child exists: a child that uses up every descriptor or process of this user can then not keep
    # the guard from finding it.
    family = open_family()
    child = spawn(argv[split + 1 :], limits, options, {wake_r, wake_w, *family})
    # Held here, the child's sockets and pipes would look open to the other side after its death.
    keep = {wake_r, wake_w, *family}
    for fd in open_descriptors():
        if fd > 2 and fd not in keep:
            os.close(fd)
    status = wait(child, wake_r)
    kill_descendants(child, family)
    return status


def spawn(argv: list[str], limits: dict[str, str], options: dict[str, int], private: set[int]) -> int:
    """Fork and execute ARGV in its own session, restricted, without standard input and `private` descriptors."""
    guard, parent = os.getpid(), os.getppid()
    child = os.fork()
    if child:
        return child
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        # A session of its own: Ctrl-C at the terminal reaches `ar`, which then ends the child in order, and not the
        # child itself.
        os.setsid()
        for fd in private:
            os.close(fd)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        if LINUX:
            restrict(options, {guard, parent})
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of capabilities would have cleared it
            # The guard may have died before the death signal was armed; then it never comes.
            if os.getppid() != guard:
                os._exit(127)
        for name, value in limits.items():
            lower(getattr(resource, f"RLIMIT_{name}"), int(value))
        os.execvp(argv[0], argv)
    except BaseException as error:
        os.write(2, f"guard: cannot start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)  # whatever happened, this copy of the guard must not go on as one


def restrict(options: dict[str, int], others: set[int]) -> None:
    """Give up keys, capabilities and system calls, as the options say. Raises OSError when the kernel refuses.

    `others` are the processes that no signal may reach.
    """
    join_empty_keyring()
    if "--oom-score" in options:
        offer_to_the_kernel(options["--oom-score"])
    if "--shared-memory" in options:
        mount_shared_memory(options["--shared-memory"])
    if "--filter" in options or "--filter-later" in options:
        drop_capabilities()
        # The kernel takes a filter from an ordinary process only after this, so that no set-user-id program can be run
        # behind one.
        checked(prctl(PR_SET_NO_NEW_PRIVS, 1))
        # A filter of its own, because its numbers are known only now. Of several filters the strictest answer counts,
        # and none can be taken off again. It comes first: the other one denies further filters.
        install(no_signals_to(others))
    if "--filter" in options:
        install(os.pread(options["--filter"], 1 << 20, 0))
        os.close(options["--filter"])


def offer_to_the_kernel(score: int) -> None:
    """Make the kernel end this process and what it starts first when memory runs out.

    `ar` measures a child's memory too, but some kinds of it escape every measurement. Passed over where the kernel
    keeps no such score. Without a capability a child could lower it again where it can write to its own entry of /proc.
    """
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123  (pathlib is slower to start)
            file.write(str(score))
    except OSError:
        pass


def join_empty_keyring() -> None:
    """Leave the session's keyring, in which one child could leave something for the next, for a new one.

    Passed over where the kernel has no keys.
    """
    import ctypes

    if (known := NUMBERS.get(os.uname().machine)) is not None:
        ctypes.CDLL(None).syscall(known[0], KEYCTL_JOIN_SESSION_KEYRING, None)


def mount_shared_memory(size: int) -> None:
    """Cover /dev/shm with an empty tmpfs that this process and its children alone see. Raises OSError."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if library.unshare(CLONE_NEWNS) != 0:
        # An ordinary user needs a user namespace to mount anything. Mapping the own number to itself keeps the files'
        # owners as they are; `setgroups` must be denied before the kernel takes a map of groups.
        checked(library.unshare(CLONE_NEWNS | CLONE_NEWUSER))
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  (pathlib is slower to start)
                file.write(text)
    # Private, recursively: otherwise the tmpfs would show up for every process of the machine.
    checked(library.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    words = f"size={size},nr_inodes={SHARED_FILES},mode=1777".encode()
    checked(library.mount(b"tmpfs", b"/dev/shm", b"tmpfs", MS_NOSUID | MS_NODEV, words))


def drop_capabilities() -> None:
    """Give up every capability, now and over the next exec: root keeps its number alone. For others it is a no-op."""
    import ctypes

    for capability in range(CAPABILITIES):
        prctl(PR_CAPBSET_DROP, capability)
    # Without these bits, exec gives a process with user number 0 all capabilities back.
    prctl(PR_SET_SECUREBITS, NO_CAPABILITIES_FOR_ROOT)
    version_3 = struct.pack("=Ii", 0x20080522, 0)
    checked(ctypes.CDLL(None, use_errno=True).capset(version_3, bytes(24)))


def install(program: bytes) -> None:
    """Put a seccomp filter, an array of `struct sock_filter`, on this process and what it starts. Raises OSError."""
    import ctypes

    held = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    library = ctypes.CDLL(None, use_errno=True)
    checked(library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0))


def no_signals_to(processes: set[int]) -> bytes:
    """Return a filter by which kill and tgkill fail with EPERM for these processes, their groups, and for "all"."""
    load, equal, done = 0x20, 0x15, 0x06
    allow, refuse = struct.pack("=HBBI", done, 0, 0, 0x7FFF0000), struct.pack("=HBBI", done, 0, 0, 0x00050001)
    groups = {os.getpgid(process) for process in processes}
    targets = sorted({number & 0xFFFFFFFF for number in (*processes, *(-group for group in groups), -1)})
    kill, tgkill = NUMBERS[os.uname().machine][1]
    lines = [
        struct.pack("=HBBI", load, 0, 0, 0),  # the call's number
        struct.pack("=HBBI", equal, 2, 0, kill),
        struct.pack("=HBBI", equal, 1, 0, tgkill),
        allow,
        struct.pack("=HBBI", load, 0, 0, 16),  # its first argument
    ]
    for number in targets:
        lines += [struct.pack("=HBBI", equal, 0, 1, number), refuse]
    return b"".join([*lines, allow])


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
        # End of file on the lifeline: `ar` closed it, or is gone. The kernel closes it even when `ar` was killed, so
        # nothing has to be said.
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


def open_family() -> tuple[int, ...]:
    """Open what `descendants` reads: /proc, and the list of this process's children where the kernel keeps one."""
    found = []
    if LINUX:
        for path in ("/proc", f"/proc/self/task/{os.getpid()}/children"):
            try:
                found.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                pass
    return tuple(found)


def kill_descendants(child: int, family: tuple[int, ...]) -> None:
    """SIGKILL, again and again until nothing is left: a process may be forking meanwhile."""
    if not LINUX:
        try:
            os.killpg(child, signal.SIGKILL)  # nothing of `ar` can be imported here, `kill_group` neither
        except (ProcessLookupError, PermissionError):
            pass
        reap(child)
        return
    # A single sweep is not enough: a process that was forked while the list was read is not in it. As subreaper this
    # process inherits whatever is left, so the list does end.
    while pids := descendants(family):
        for number in (signal.SIGSTOP, signal.SIGKILL):  # a process that is stopped forks no more
            for pid in pids:
                try:
                    os.kill(pid, number)
                except (ProcessLookupError, PermissionError):
                    pass
        reap(child)
        time.sleep(0.001)


def descendants(family: tuple[int, ...]) -> list[int]:
    """Return every process below this one; where /proc cannot be listed, for want of descriptors, its children alone.

    Those are enough: whatever they leave becomes a child in its turn.
    """
    try:
        return below(os.getpid(), family[0])
    except OSError:
        if len(family) < 2:
            raise
        return [int(word) for word in os.pread(family[1], 1 << 20, 0).split()]


def below(root: int, proc: int) -> list[int]:
    """Return every process below `root`, from /proc. A command may hold spaces and brackets: read on from the last."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                fd = os.open(f"{entry}/stat", os.O_RDONLY, dir_fd=proc)
            except (FileNotFoundError, ProcessLookupError):
                continue
            try:
                stat = os.read(fd, 4096)
            except ProcessLookupError:
                continue
            finally:
                os.close(fd)
            parent = int(stat[stat.rindex(b")") + 1 :].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    front = [root]
    while front:
        under = children.get(front.pop(), [])
        found += under
        front += under
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


def prctl(option: int, value: int) -> int:
    """Linux prctl(2), which the standard library does not offer."""
    import ctypes

    answer: int = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    return answer


def checked(answer: int) -> None:
    """Raise OSError for an answer of the C library that says that it failed."""
    if answer != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
