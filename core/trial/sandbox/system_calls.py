"""The system calls that a train file's processes may not make, as one seccomp filter for every level on Linux.

Namespaces and landlock hide files and other processes. They leave ways to store a few bits where the next process
finds them (keyrings, System V objects, attributes and times of files, the page cache), and ways to disturb the
processes around a child (limits, priorities, signals). The filter closes those.

It is a list of what is denied, with everything else allowed. A list of what is allowed would have to name all that
PyTorch, MLX, a C++ compiler and a GPU's driver call, and would break with their next version. Calls younger than the
list (above `LAST`) do not exist for a child: programs expect that of an older kernel.

CUDA needs `ioctl`, `mmap`, `memfd_create`, `eventfd` and `poll`, which are allowed. Its driver also binds an abstract
socket and does not start without it, so `gpu=True` allows binding one of that kind; connecting stays denied.

A second filter comes on top once a child has its weights (`sealed_rules`; see `sealing`). It denies every call that
looks up or makes a name, for the kernel remembers those.

The program is classic BPF, assembled here because the filter must work where no library is installed, and because the
libseccomp of a common system knows neither the youngest calls nor how to leave calls above a number to ENOSYS. Tests
compare it with what libseccomp makes of the same rules, interpret it for both machines, and ask the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CALLS: dict[str, tuple[int | None, int | None]] = {
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182), "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261), "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "memfd_secret": (447, 447),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "clone": (56, 220), "clone3": (435, 435),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "personality": (135, 92), "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42), "uselib": (134, None), "sysfs": (139, None), "ustat": (136, None), "_sysctl": (156, None),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27), "inotify_rm_watch": (255, 28),
    "mincore": (27, 232), "cachestat": (451, 451), "fadvise64": (221, 223), "readahead": (187, 213),
    "preadv2": (327, 286), "pwritev2": (328, 287), "madvise": (28, 233), "vmsplice": (278, 75), "seccomp": (317, 277),
    "socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201), "connect": (42, 203),
    "accept": (43, 202), "accept4": (288, 242), "setsockopt": (54, 208),
    "ioctl": (16, 29), "fcntl": (72, 25), "prctl": (157, 167),
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "stat": (4, None),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "statfs": (137, 43), "chdir": (80, 49),
    "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11),
    "llistxattr": (195, 12), "flistxattr": (196, 13), "getdents": (78, None), "getdents64": (217, 61),
    "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "truncate": (76, 45),
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "pipe": (22, None), "pipe2": (293, 59), "eventfd": (284, None), "eventfd2": (290, 19), "memfd_create": (319, 279),
    "timerfd_create": (283, 85), "epoll_create": (213, None), "epoll_create1": (291, 20), "signalfd": (282, None),
    "signalfd4": (289, 74), "pidfd_open": (434, 434), "io_setup": (206, 0), "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    "sendfile": (40, 71), "splice": (275, 76), "tee": (276, 77),
    "mmap": (9, 222), "getsockopt": (55, 209), "recvmsg": (47, 212), "recvmmsg": (299, 243), "mbind": (237, 235),
}  # fmt: skip
"""Name -> its number on x86-64 and on arm64, None where it does not exist (kernel: asm/unistd_64.h, asm-generic)."""
LAST = 462
"""The youngest call that was reviewed for this list (mseal, Linux 6.10). The same number on every machine."""

MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""`platform.machine()` -> its AUDIT_ARCH number and its column in `CALLS`."""
X32_BIT = 0x40000000
"""Calls of the x32 ABI on x86-64: the same calls under other numbers."""
NO_CALL = 0xFFFFFFFF
"""A number that debuggers use for a call to be skipped."""

PRETEND = 0
"""The answer "done" without doing it: for calls that compilers make on files of their own and cannot do without."""
NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
PAGE_ADVICE = (20, 21, 25)
"""MADV_COLD and MADV_PAGEOUT, which push pages out of the cache, and MADV_COLLAPSE, which makes huge pages of a file's:
they stay, and a later process can tell them from others."""
MOVED_PAGES = 0b110
"""MPOL_MF_MOVE and MOVE_ALL of mbind: pages of a shared file that stay on another node of memory."""
FILE_CONTROLS = (0xC020660B, 0x40086602, 0x40046602, 0x401C5820, 0x40087602, 0x40047602, 0x40086604, 0x41009432,
                 0x40806685, 0x800C6613, 0x6612)  # fmt: skip
"""FS_IOC_FIEMAP: where a new file lies on the disk tells how much was written before it, by whomever. And attributes of
a file that can be changed through a descriptor for reading: FS_IOC_SETFLAGS (64 and 32 bits), FSSETXATTR, SETVERSION
(both, and ext4's own), SETFSLABEL, ENABLE_VERITY, SET_ENCRYPTION_POLICY, ext4's PRECACHE_EXTENTS."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing for the person at the terminal."""
SOCKET_OWNER = (0x8901, 0x8902)
"""FIOSETOWN and SIOCSPGRP: a signal to any process when data arrive."""
SIGNALS_OF_FILES = (8, 10, 15, 1024, 1026)
"""fcntl's F_SETOWN, F_SETSIG, F_SETOWN_EX (a signal to any process), F_SETLEASE and F_NOTIFY (news of shared files)."""
LIFETIME_HINTS = (1036, 1038)
"""fcntl's F_SET_RW_HINT and F_SET_FILE_RW_HINT: two bits that the kernel keeps with a file, also one that is open for
reading alone, and tells everybody who opens it."""
PRCTL_DENIED = (4, 22, 62, 0x53564D41)
"""PR_SET_DUMPABLE, which hides a process's open files from its own user, by which what they take is counted;
PR_SET_SECCOMP, further filters; PR_SCHED_CORE, sharing a core; PR_SET_VMA, other names for shared memory, which is
counted by its name."""
SOCKET_BUFFERS = (7, 8, 32, 33)
"""SO_SNDBUF, SO_RCVBUF and both by force: what lies in a socket is memory that no process is charged for."""
SOCKET_COOKIE = 57
"""SO_COOKIE: a number from a counter of the whole machine, taken when it is asked for."""
CLONE_THREAD = 0x10000
MAP_PRIVATE, MAP_TYPE = 0x2, 0xF
HARMLESS_CONTROLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (is it a terminal?), FIONREAD, FIONBIO, FIONCLEX and FIOCLEX."""
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET, SOCK_TYPE_MASK = 1, 1, 5, 0xF

LOAD, AND, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
"""BPF: load a word of `struct seccomp_data`, and it, compare it with a constant, return."""
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16
ALLOW, ERRNO, TRACE, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x7FF00000, 0x80000000
"""A filter's answers. With `TRACE` the call is made if a tracer lets it, and fails with ENOSYS where there is none."""


@dataclass(frozen=True)
class Test:
    """One look at the lower 32 bits of an argument; the kernel reads no more of those that are looked at."""

    argument: int
    values: tuple[int, ...]
    denied: bool
    """True to deny the call when the argument is one of the values, False to deny it when it is none of them."""
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True)
class Rule:
    """Calls that are denied: always, or when one of the tests says so."""

    calls: str
    answer: int
    """The errno that the caller sees, or `PRETEND`."""
    tests: tuple[Test, ...] = ()
    otherwise: int | None = None
    """The answer where no test denies the call; None lets it through."""
    action: int = ERRNO
    """`TRACE` for calls that a child can make under its parent's hands alone."""


def rules(*, gpu: bool) -> list[Rule]:
    """Return the rules of everything that is denied. Each call is in one rule alone.

    `gpu` allows the socket that NVIDIA's driver listens on: a local one of packets, which nothing here can connect to.
    """
    own = Test(0, (0,), denied=False)
    """A process or thread that is the caller itself."""
    pairs = (
        Test(0, (AF_UNIX,), denied=False),
        # A datagram socket sends to any address without being connected to it.
        Test(1, (SOCK_STREAM, SOCK_SEQPACKET), denied=False, mask=SOCK_TYPE_MASK),
    )
    listening = (Test(0, (AF_UNIX,), denied=False), Test(1, (SOCK_SEQPACKET,), denied=False, mask=SOCK_TYPE_MASK))
    found = [
        # What one process leaves and another finds.
        Rule("add_key request_key keyctl", errno.ENOSYS),
        Rule("shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl", errno.ENOSYS),
        Rule("mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr", errno.ENOSYS),
        Rule("setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr", errno.EOPNOTSUPP),
        Rule("chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat", PRETEND),
        # "Now" fails, upon which `touch` creates the file that may not be there; given times are what copying sets.
        Rule("utime utimes", errno.EPERM, (Test(1, (0,), denied=True),), PRETEND),
        Rule("futimesat utimensat", errno.EPERM, (Test(2, (0,), denied=True),), PRETEND),
        Rule("fanotify_init fanotify_mark inotify_init inotify_init1 inotify_add_watch inotify_rm_watch", errno.ENOSYS),
        Rule("name_to_handle_at open_by_handle_at", errno.EPERM),
        # A read through io_submit may ask not to wait, as one through preadv2 may: it fails for what is not in memory.
        Rule("mincore cachestat io_setup", errno.ENOSYS),
        Rule("fadvise64 readahead", PRETEND),
        Rule("preadv2 pwritev2", errno.EOPNOTSUPP, (Test(5, (0,), denied=False),)),
        Rule("madvise", PRETEND, (Test(2, PAGE_ADVICE, denied=True),)),
        Rule("ioctl", errno.EPERM, (Test(1, (*FILE_CONTROLS, *TERMINAL_INPUT, *SOCKET_OWNER), denied=True),)),
        Rule("fcntl", errno.EPERM, (Test(1, (*SIGNALS_OF_FILES, *LIFETIME_HINTS), denied=True),)),
        # Other processes.
        Rule("ptrace process_vm_readv process_vm_writev kcmp process_madvise process_mrelease", errno.EPERM),
        Rule("pidfd_getfd pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo", errno.EPERM),
        Rule("prlimit64", errno.EPERM, (own,)),
        # A process may move pages of shared files, too, where they stay when it is gone; and ask where pages are.
        Rule("migrate_pages move_pages", errno.EPERM),
        Rule("mbind", errno.EPERM, (Test(5, (0,), denied=False, mask=MOVED_PAGES),)),
        Rule("setpriority", errno.EPERM, (own, Test(1, (0,), denied=False))),
        Rule("ioprio_set", errno.EPERM, (Test(0, (1,), denied=False), Test(1, (0,), denied=False))),
        # The C library sets a new thread's from outside, and gives the thread up when that fails.
        Rule("sched_setscheduler sched_setparam sched_setattr", PRETEND, (own,)),
        Rule("sched_setaffinity", PRETEND),  # the cores of a trial are chosen for it: others belong to its neighbours
        Rule("prctl", errno.EPERM, (Test(0, PRCTL_DENIED, denied=True),)),
        # Memory that no process is charged for: a huge page stays while a pipe holds a byte of it, and each thread may
        # have megabytes of filters. The one that seals a child comes from its parent.
        Rule("vmsplice", errno.EPERM),
        Rule("seccomp", 0, action=TRACE),
        # The same of files: a byte that waits in a socket or a pipe holds the page of the file that it came from, up to
        # 2 MiB, also when the file is gone. Copying goes on with read and write.
        Rule("sendfile splice tee", errno.ENOSYS),
        # And of landlock: each thread may have megabytes of rules. Those of a child come from its own start.
        Rule("landlock_create_ruleset landlock_add_rule landlock_restrict_self", errno.ENOSYS),
        # The network.
        Rule("socket", errno.EPERM, listening if gpu else ()),
        Rule("socketpair", errno.EPERM, pairs),
        Rule("connect", errno.EPERM),
        Rule("setsockopt", PRETEND, (Test(2, SOCKET_BUFFERS, denied=True),)),
        # The kernel.
        Rule("bpf perf_event_open userfaultfd memfd_secret", errno.EPERM),
        Rule("io_uring_setup io_uring_enter io_uring_register", errno.ENOSYS),
        Rule("unshare setns mount umount2 pivot_root chroot", errno.EPERM),
        Rule("open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr", errno.ENOSYS),
        Rule("clone", errno.EPERM, (Test(0, (0,), denied=False, mask=NAMESPACE_FLAGS),)),
        Rule("clone3", errno.ENOSYS),  # its flags lie in memory; the C library goes on with clone
        Rule("init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff", errno.EPERM),
        Rule("acct quotactl quotactl_fd syslog settimeofday clock_settime clock_adjtime adjtimex", errno.EPERM),
        Rule("sethostname setdomainname vhangup iopl ioperm", errno.EPERM),
        Rule("personality", errno.EPERM, (Test(0, (NO_CALL,), denied=False),)),  # that value asks
        Rule("modify_ldt lookup_dcookie nfsservctl uselib sysfs ustat _sysctl", errno.ENOSYS),
    ]  # fmt: skip
    return found if gpu else [*found, Rule("bind listen accept accept4", errno.EPERM)]


def sealed_rules() -> list[Rule]:
    """Return what is denied besides once a child has loaded its weights: it computes from then on, and opens nothing.

    A name that is looked up in vain stays in the kernel's memory, and the time of the next look tells. A number from a
    counter of the whole machine tells how many were taken. Calls that look at names and are denied from the start are
    not named again.
    """
    names = (
        "open openat openat2 creat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs "
        "chdir execve execveat"
    )
    changes = (
        "mkdir mkdirat mknod mknodat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat "
        "truncate"
    )
    counted = (
        "pipe pipe2 eventfd eventfd2 memfd_create timerfd_create epoll_create epoll_create1 signalfd signalfd4 "
        "pidfd_open socketpair"
    )
    return [
        Rule(names, errno.ENOENT),
        Rule(changes, errno.ENOENT),
        # A list of a folder of /proc looks up each name in it. Attributes of an open file are read into memory.
        Rule("getdents getdents64", errno.ENOENT),
        Rule("getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr", errno.EOPNOTSUPP),
        # Some file systems look up names by ioctl (XFS_IOC_PATH_TO_HANDLE).
        Rule("ioctl", errno.ENOTTY, (Test(1, HARMLESS_CONTROLS, denied=False),)),
        # Denied from the start where no NVIDIA card is. A bound socket has a name, too.
        Rule("socket bind listen accept accept4", errno.EPERM),
        Rule("fork vfork", errno.EPERM),
        Rule("clone", errno.EPERM, (Test(0, (CLONE_THREAD,), denied=False, mask=CLONE_THREAD),)),
        Rule(counted, errno.EPERM),
        Rule("getsockopt", errno.EPERM, (Test(2, (SOCKET_COOKIE,), denied=True),)),
        # A file that it has sent to itself is open nowhere, and was not read into memory as a whole.
        Rule("recvmsg recvmmsg", errno.EPERM),
        # Shared memory without a file is a file of the kernel's own, with a number.
        Rule("mmap", errno.EPERM, (Test(3, (MAP_PRIVATE,), denied=False, mask=MAP_TYPE),)),
    ]


@functools.cache
def program(machine: str, *, gpu: bool) -> bytes:
    """Return the filter for a machine ("x86_64" or "aarch64") as an array of `struct sock_filter`.

    A call of another machine's or of the x32 ABI ends the process.
    """
    return _assembled(machine, rules(gpu=gpu))


@functools.cache
def sealed_program(machine: str) -> bytes:
    """Return the second filter for a machine, which is put on top of the first (see `sealed_rules`)."""
    return _assembled(machine, sealed_rules())


def _assembled(machine: str, denied: Sequence[Rule]) -> bytes:
    architecture, column = MACHINES[machine]
    lines = [
        _line(LOAD, MACHINE_AT),
        # First the machine: on another one's entry the same numbers mean other calls.
        _line(JUMP_EQUAL, architecture, 1, 0),
        _line(RETURN, KILL_PROCESS),
        _line(LOAD, NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [
            _line(JUMP_EQUAL, NO_CALL, 2, 0),
            _line(JUMP_AT_LEAST, X32_BIT, 0, 1),
            _line(RETURN, KILL_PROCESS),
        ]
    # ENOSYS, not EPERM: libraries then fall back to the older call, as on an older kernel.
    lines += [_line(JUMP_AT_LEAST, LAST + 1, 0, 1), _line(RETURN, ERRNO | errno.ENOSYS)]
    for rule in denied:
        for name in rule.calls.split():
            number = CALLS[name][column]
            if number is not None:
                block = _block(rule)
                lines += [_line(JUMP_EQUAL, number, 0, len(block)), *block]
    return b"".join([*lines, _line(RETURN, ALLOW)])


def _block(rule: Rule) -> list[bytes]:
    """Return the lines that follow once the number matches: every path through them returns."""
    deny = _line(RETURN, rule.action | rule.answer)
    if not rule.tests:
        return [deny]
    lines: list[bytes] = []
    for test in rule.tests:
        lines.append(_line(LOAD, ARGUMENTS_AT + 8 * test.argument))  # little-endian: the lower half comes first
        if test.mask != 0xFFFFFFFF:
            lines.append(_line(AND, test.mask))
        *others, last = test.values
        # A value that fits jumps to the denial, which is the line after the last value, or to the line behind it.
        jump = 0 if test.denied else 1
        lines += [_line(JUMP_EQUAL, value, len(others) - index + jump, 0) for index, value in enumerate(others)]
        lines += [_line(JUMP_EQUAL, last, jump, 1 - jump), deny]
    return [*lines, _line(RETURN, ALLOW if rule.otherwise is None else ERRNO | rule.otherwise)]


def _line(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, constant)


@functools.cache
def why_unavailable() -> str | None:
    """Say why no filter can be used here; None where one can. Asked once per process."""
    if sys.platform != "linux":
        return "seccomp is Linux only"
    if platform.machine() not in MACHINES:
        return f"no filter is written for {platform.machine()}"
    action = struct.pack("=I", KILL_PROCESS)
    number = 317 if platform.machine() == "x86_64" else 277
    get_action_available = 2
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(number, get_action_available, 0, action) != 0:
        return f"this kernel has no seccomp filters ({os.strerror(ctypes.get_errno())})"
    return None


@contextlib.contextmanager
def program_file(gpu_nodes: Sequence[str]) -> Iterator[int | None]:
    """Yield an inheritable descriptor from which this machine's filter can be read; None where no filter works."""
    if why_unavailable() is not None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(program(platform.machine(), gpu=any("nvidia" in node for node in gpu_nodes)))
        file.seek(0)
        yield file.fileno()
