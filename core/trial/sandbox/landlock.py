"""Isolation without namespaces (Linux 5.13 and later): a process gives up files and TCP, then becomes the command.

It runs as a script with `python -I -S`, before anything untrusted:

    landlock.py [--read PATH]... [--list PATH]... [--write PATH]... [--filter FD] -- ARGV...

Files that are not named are out of reach, for this process and all that it starts, for good. `--read` also allows to
execute, `--list` allows no more than to list folders. `--filter` then installs the seccomp program that lies in the
file FD: it denies further rules, so it comes last. TCP is denied from ABI 4 on; signals and abstract sockets to the
outside from ABI 6 on. The rules do not cover UDP. A caller should allow /proc/self and not /proc, which shows other
processes' environments.

All numbers are from the kernel's include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every architecture."""
VERSION_FLAG = 1
"""Makes `CREATE_RULESET` return the ABI's version instead."""
RULE_PATH_BENEATH = 1
"""Kind of a rule that holds for a file, or for a folder and all below it."""
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38
"""prctl: programs that this process executes gain no privileges. The kernel asks for it before `RESTRICT_SELF`."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that can be granted on something that is no folder; the kernel refuses a rule with others."""
ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""ABI -> all rights on files that it knows. An ABI that is not named knows those of the one before it."""
TCP = 0b11
"""To bind and to connect, from ABI 4 on."""
SCOPES = 0b11
"""Abstract Unix sockets and signals, from ABI 6 on."""


def abi() -> int:
    """Return the kernel's version of landlock; 0 where it is missing or switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, _library().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG))


def restrict(read: list[str], write: list[str], listed: list[str] | None = None) -> None:
    """Give up every file but these, and TCP. A path that does not exist is skipped. Raises `OSError`."""
    version, library = abi(), _library()
    if version < 1:
        raise OSError("this kernel has no landlock")
    # Every right that the kernel knows is taken away first: one that is not handled would stay with everybody.
    rights = ALL_RIGHTS[max(known for known in ALL_RIGHTS if known <= version)]
    # What the ruleset names is denied unless a rule allows it. An older kernel takes only the fields that it knows.
    fields = [rights] + ([TCP] if version >= 4 else []) + ([SCOPES] if version >= 6 else [])
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _checked(library.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for paths, granted in ((read, READ), (listed or [], READ_DIR), (write, rights)):
        for path in paths:
            _allow(library, ruleset, path, granted & rights)
    _checked(library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(library.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def install(fd: int) -> None:
    """Put the seccomp program in a file on this process, and close the file. Raises `OSError`."""
    program = os.pread(fd, 1 << 20, 0)
    os.close(fd)
    held = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    _checked(_library().prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0))


def _allow(library: ctypes.CDLL, ruleset: int, path: str, granted: int) -> None:
    try:
        # O_PATH names a file without opening it, so that a rule can be made for what may not be read, a device for one.
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            granted &= FILE_RIGHTS
        rule = struct.pack("=Qi", granted, fd)
        _checked(library.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(fd)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return answer


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    """Restrict this process, then execute ARGV. Returns 127 when either fails: ARGV never runs unrestricted."""
    split = argv.index("--")
    options = list(zip(argv[0:split:2], argv[1:split:2], strict=True))
    try:
        restrict(*([path for option, path in options if option == name] for name in ("--read", "--write", "--list")))
        for option, fd in options:
            if option == "--filter":
                install(int(fd))
        os.execvp(argv[split + 1], argv[split + 1 :])
    except OSError as error:
        os.write(2, f"cannot start {argv[split + 1]} behind landlock: {error}\n".encode())
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
