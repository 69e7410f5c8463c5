"""Which system calls a child may not make: as the filter says it for both machines, as libseccomp and the kernel do."""

from __future__ import annotations

import errno
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from prerequisites import lacking

from autoresearch.core.trial.sandbox import guard, system_calls
from autoresearch.core.trial.sandbox.system_calls import (
    ALLOW,
    CALLS,
    ERRNO,
    KILL_PROCESS,
    LAST,
    MACHINES,
    TRACE,
    X32_BIT,
    Rule,
    program,
    rules,
    sealed_program,
    sealed_rules,
)

BOTH = pytest.mark.parametrize("machine", MACHINES)
HERE = pytest.mark.skipif(
    system_calls.why_unavailable() is not None, reason=f"no filter: {system_calls.why_unavailable()}"
)
EVERYTHING = (1 << 64) - 1
"""An argument that no call accepts: a call that gets through the filter fails, and does no harm."""
COMMON = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "futex": 202, "memfd_create": 319, "eventfd2": 290, "execve": 59,
               "vfork": 58, "exit_group": 231, "copy_file_range": 326, "flock": 73, "kill": 62},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "futex": 98, "memfd_create": 279, "eventfd2": 19, "execve": 221,
                "exit_group": 94, "copy_file_range": 285, "flock": 32, "kill": 129},
}  # fmt: skip


def verdict(code: bytes, machine: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Run classic BPF as the kernel does, on one `struct seccomp_data`."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, machine, 0, *padded)
    lines = list(struct.iter_unpack("=HBBI", code))
    at, accumulator = 0, 0
    while True:
        kind, if_true, if_false, constant = lines[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif kind == 0x54:
            accumulator &= constant
        elif kind == 0x05:
            at += constant
        elif kind in (0x15, 0x25, 0x35, 0x45):
            said = {0x15: accumulator == constant, 0x25: accumulator > constant,
                    0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}[kind]  # fmt: skip
            at += if_true if said else if_false
        else:
            assert kind == 0x06, f"an instruction that the filter does not use: {kind:#x}"
            return constant


def denied_arguments(rule: Rule) -> list[tuple[int, ...]]:
    """Arguments of which each set alone makes the rule deny its calls."""
    if not rule.tests:
        return [(0,) * 6, (EVERYTHING,) * 6]
    harmless = allowed_arguments(rule)
    found = []
    for test in rule.tests:
        for value in test.values if test.denied else (other_than(test.values, test.mask),):
            found.append(tuple(value if place == test.argument else old for place, old in enumerate(harmless)))
    return found


def allowed_arguments(rule: Rule) -> tuple[int, ...]:
    arguments = [0] * 6
    for test in rule.tests:
        arguments[test.argument] = other_than(test.values, test.mask) if test.denied else test.values[0]
    return tuple(arguments)


def other_than(values: tuple[int, ...], mask: int) -> int:
    return next(value for value in (mask, 0, 1) if value & mask not in values)


FILTERS = pytest.mark.parametrize(
    ("denied", "code_for"),
    [
        (rules(gpu=False), lambda machine: program(machine, gpu=False)),
        (rules(gpu=True), lambda machine: program(machine, gpu=True)),
        (sealed_rules(), sealed_program),
    ],
    ids=["from the start", "with a GPU", "once sealed"],
)


@BOTH
@FILTERS
def test_each_denied_call_gets_its_answer_on_both_machines(
    machine: str, denied: list[Rule], code_for: Callable[[str], bytes]
) -> None:
    code, (architecture, column) = code_for(machine), MACHINES[machine]
    for rule in denied:
        for name in rule.calls.split():
            number = CALLS[name][column]
            if number is None:
                continue
            for arguments in denied_arguments(rule):
                assert verdict(code, architecture, number, arguments) == rule.action | rule.answer, (name, arguments)
            if rule.tests:
                after = ALLOW if rule.otherwise is None else ERRNO | rule.otherwise
                assert verdict(code, architecture, number, allowed_arguments(rule)) == after, name


@BOTH
@FILTERS
def test_every_other_call_is_allowed_up_to_the_youngest_that_was_reviewed(
    machine: str, denied: list[Rule], code_for: Callable[[str], bytes]
) -> None:
    code, (architecture, column) = code_for(machine), MACHINES[machine]
    named = {CALLS[name][column] for rule in denied for name in rule.calls.split()}
    for number in range(LAST + 1):
        if number not in named:
            assert verdict(code, architecture, number, (EVERYTHING,) * 6) == ALLOW, number
    for number in (LAST + 1, 463, 469, 511, 1 << 20):
        assert verdict(code, architecture, number) == ERRNO | errno.ENOSYS


@BOTH
def test_the_first_filter_leaves_what_every_program_needs(machine: str) -> None:
    column = MACHINES[machine][1]
    named = {CALLS[name][column] for rule in rules(gpu=False) for name in rule.calls.split()}
    assert named.isdisjoint(COMMON[machine].values())


@BOTH
def test_calls_under_other_numbers_end_the_process(machine: str) -> None:
    code, (architecture, _) = program(machine, gpu=False), MACHINES[machine]
    for other in (0x40000003, 0x40000028, *(number for number, _ in MACHINES.values() if number != architecture)):
        assert verdict(code, other, 1) == KILL_PROCESS
    if machine == "x86_64":
        assert verdict(code, architecture, X32_BIT | 1) == KILL_PROCESS
        assert verdict(code, architecture, X32_BIT | 516) == KILL_PROCESS


@BOTH
def test_the_upper_half_of_an_argument_changes_nothing(machine: str) -> None:
    code, (architecture, column) = program(machine, gpu=False), MACHINES[machine]
    number = CALLS["prlimit64"][column]
    assert number is not None
    assert verdict(code, architecture, number, (1 << 32,)) == ALLOW  # the kernel reads 0 there: the caller itself
    assert verdict(code, architecture, number, (1 << 32 | 7,)) == ERRNO | errno.EPERM


def test_nvidia_s_driver_may_listen_and_nobody_may_connect() -> None:
    code, (architecture, column) = program("x86_64", gpu=True), MACHINES["x86_64"]

    def said(name: str, *arguments: int) -> int:
        number = CALLS[name][column]
        assert number is not None
        return verdict(code, architecture, number, arguments)

    local, internet, packets, datagrams, close_on_exec = 1, 2, 5, 2, 0o2000000
    assert said("socket", local, packets | close_on_exec) == said("bind", 3) == said("listen", 3) == ALLOW
    assert said("socket", local, datagrams) == said("socket", internet, packets) == ERRNO | errno.EPERM
    assert said("connect", 3) == ERRNO | errno.EPERM


def test_a_call_stands_in_one_rule_and_every_number_is_used() -> None:
    named = []
    for denied in (rules(gpu=False), sealed_rules()):
        names = [name for rule in denied for name in rule.calls.split()]
        assert len(names) == len(set(names))
        named += names
    assert set(named) == CALLS.keys()
    for column in (0, 1):
        numbers = [numbers[column] for numbers in CALLS.values() if numbers[column] is not None]
        assert len(numbers) == len(set(numbers))


def libseccomp():  # type: ignore[no-untyped-def]
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        lacking(f"libseccomp cannot be asked: {error}")
    return pyseccomp


def test_libseccomp_knows_the_calls_by_the_same_numbers() -> None:
    library = libseccomp()
    for name, numbers in CALLS.items():
        for machine, number in zip((library.Arch.X86_64, library.Arch.AARCH64), numbers, strict=True):
            known = library.resolve_syscall(machine, name)
            assert (known if known >= 0 else None) == number, name


@BOTH
@FILTERS
def test_libseccomp_makes_a_filter_of_the_same_verdicts(
    machine: str, denied: list[Rule], code_for: Callable[[str], bytes]
) -> None:
    library = libseccomp()
    native = {"x86_64": library.Arch.X86_64, "aarch64": library.Arch.AARCH64}
    theirs = library.SyscallFilter(library.ALLOW)
    if not theirs.exist_arch(native[machine]):
        theirs.add_arch(native[machine])
    for arch in native.values():
        if arch != native[machine] and theirs.exist_arch(arch):
            theirs.remove_arch(arch)
    architecture, column = MACHINES[machine]

    def made(rule: Rule):  # type: ignore[no-untyped-def]
        return library.TRACE(rule.answer) if rule.action == TRACE else library.ERRNO(rule.answer)

    asked = []
    for rule in denied:
        # It takes one comparison of an argument a rule, none for "neither this nor that", and one answer a call.
        if rule.otherwise is not None or any(
            not test.denied and (len(test.values) > 1 or test.mask != 0xFFFFFFFF) for test in rule.tests
        ):
            continue
        for name in rule.calls.split():
            number = CALLS[name][column]
            if number is None:
                continue
            for test in rule.tests:
                for value in test.values:
                    kind = library.EQ if test.denied else library.NE
                    theirs.add_rule(made(rule), name, library.Arg(test.argument, kind, value))
            if not rule.tests:
                theirs.add_rule(made(rule), name)
            asked += [(number, arguments) for arguments in [*denied_arguments(rule), allowed_arguments(rule)]]
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as sink:
        theirs.export_bpf(sink)
    with os.fdopen(reader, "rb") as source:
        their_code = source.read()
    ours = code_for(machine)
    assert len(asked) > 50
    for number, arguments in asked:
        short = tuple(
            argument & 0xFFFFFFFF for argument in arguments
        )  # it compares 64 bits, the kernel's calls read 32
        assert verdict(their_code, architecture, number, short) == verdict(ours, architecture, number, short), number


IN_THE_KERNEL = """
import ctypes, errno, importlib.util, json, sys
spec = importlib.util.spec_from_file_location("guard", {guard!r})
guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)
guard.drop_capabilities()
guard.prctl(guard.PR_SET_NO_NEW_PRIVS, 1)
guard.install(bytes.fromhex({code!r}))
library = ctypes.CDLL(None, use_errno=True)
said = []
for number, arguments in {calls!r}:
    ctypes.set_errno(0)
    answer = library.syscall(ctypes.c_long(number), *(ctypes.c_ulong(value) for value in arguments))
    said.append((answer, ctypes.get_errno()))
print(json.dumps(said))
"""


def ask_kernel(calls: list[tuple[int, tuple[int, ...]]]) -> subprocess.CompletedProcess[str]:
    code = IN_THE_KERNEL.format(guard=guard.__file__, code=program(platform.machine(), gpu=False).hex(), calls=calls)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@HERE
def test_the_kernel_answers_call_by_call() -> None:
    column = MACHINES[platform.machine()][1]
    calls, expected = [], []
    for rule in rules(gpu=False):
        for name in rule.calls.split():
            number = CALLS[name][column]
            if number is None:
                continue
            arguments = [EVERYTHING] * 6
            for test in rule.tests[:1]:
                value = test.values[0] if test.denied else other_than(test.values, test.mask)
                arguments[test.argument] = value
            calls.append((number, tuple(arguments)))
            # Where nobody traces a process, a call that is left to its tracer does not exist.
            answer = errno.ENOSYS if rule.action == TRACE else rule.answer
            expected.append((name, [-1, answer] if answer else [0, 0]))
    said = ask_kernel(calls)
    assert said.returncode == 0, said.stderr
    answers = json.loads(said.stdout)
    assert [(name, answer) for (name, _), answer in zip(expected, answers, strict=True)] == expected
    assert len(expected) > 110


@HERE
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has other numbers for its calls")
def test_the_kernel_ends_a_process_that_calls_under_other_numbers() -> None:
    assert ask_kernel([(X32_BIT | 39, ())]).returncode == -31  # SIGSYS
    getpid_of_32_bits = "b814000000cd80c3"  # mov eax, 20; int 0x80; ret
    jump = (
        "import mmap, ctypes\n"
        f"page = mmap.mmap(-1, 4096, prot=7)\npage.write(bytes.fromhex({getpid_of_32_bits!r}))\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()\n"
    )
    code = IN_THE_KERNEL.format(guard=guard.__file__, code=program("x86_64", gpu=False).hex(), calls=[]) + jump
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == -31


@HERE
def test_what_frameworks_and_compilers_do_still_works() -> None:
    code = IN_THE_KERNEL.format(guard=guard.__file__, code=program(platform.machine(), gpu=False).hex(), calls=[])
    code += (
        "import os, socket, subprocess, tempfile, threading, mmap, resource, shutil, pathlib\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "thread = threading.Thread(target=lambda: None); thread.start(); thread.join()\n"
        "subprocess.run(['true'], check=True)\n"
        "child = subprocess.Popen(['sleep', '9']); child.kill(); assert child.wait() == -9\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "os.setpriority(os.PRIO_PROCESS, 0, 19); os.sched_setaffinity(0, os.sched_getaffinity(0))\n"
        "mmap.mmap(-1, 4096).madvise(mmap.MADV_DONTNEED)\n"
        "folder = tempfile.mkdtemp(); place = pathlib.Path(folder, 'f'); place.touch(); place.touch()\n"
        "place.write_text('copied'); shutil.copy2(place, place.with_name('g'))\n"
        "assert place.with_name('g').read_text() == 'copied'; os.chmod(place, 0o777); shutil.rmtree(folder)\n"
        "print('all of it')\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert said.stdout.splitlines()[-1:] == ["all of it"], said.stderr
