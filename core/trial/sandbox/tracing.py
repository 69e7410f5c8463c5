"""Stop the threads of another process, and have one of them make a system call (Linux's ptrace).

A debugger does the same when it evaluates an expression. The thread's registers point at an instruction that enters the
kernel, with the call and its arguments in their places; the thread runs that instruction alone; then it gets its own
registers back and never knows. What the thread itself prepares (its stack, its code, its signals) can make this fail,
but cannot change which call is made: the kernel says at the call's entry what it was given.

All requests must come from the thread of `ar` that has begun them. When that thread ends, the kernel kills what it has
not let go.

Constants are from the kernel's include/uapi/linux/ptrace.h and asm/ptrace.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PEEK, POKE, CONT, DETACH, TO_NEXT_CALL = 2, 5, 7, 17, 24
GET_REGISTERS, SET_REGISTERS, SEIZE, INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
SET_OPTIONS, GET_SIGNAL_MASK, SET_SIGNAL_MASK, GET_CALL = 0x4200, 0x420A, 0x420B, 0x420E
GENERAL_REGISTERS = 1
"""NT_PRSTATUS."""
OPTIONS, LEFT_CALLS = 0x1 | 0x100000, 0x80
"""PTRACE_O_TRACESYSGOOD and EXITKILL for every thread. TRACESECCOMP, by which calls that a filter leaves to the tracer
stop, for the one thread that makes calls of ours: another one's own call of that kind must fail as it does without a
tracer. Stopped at it, the thread would make it when it is let go."""
ENTRY, EXIT, LEFT_TO_US = 1, 2, 3
"""Kinds of a stop at a call: before it, after it, and where a filter says that the tracer decides."""
CALL_BYTES = 88
"""Size of struct ptrace_syscall_info."""
ALL_THREADS = 0x40000000
"""__WALL of waitpid: threads as well as processes."""
EVENT_STOP, EVENT_SECCOMP = 128, 7
STOPS = 32
"""Stops of a thread on the way through one call: an honest one has three."""
WORD = 8
EVERY_SIGNAL = struct.pack("=Q", (1 << 64) - 1)


class TracingFault(RuntimeError):  # noqa: N818
    """A process that cannot be stopped, or a call that cannot be made in it, with the reason in words."""


@dataclass(frozen=True)
class Machine:
    """The registers of one kind of processor, as numbers of 64 bits, and its calls."""

    registers: int
    """Number of them."""
    number: int
    """Place of the register that takes the number of a call."""
    arguments: tuple[int, ...]
    counter: int
    """Place of the program counter."""
    origin: int | None
    """Place of the call that is to be made again once the thread goes on; None where the kernel has seen to that."""
    flags: int | None
    """Place of the flags that would make the processor refuse a jump to an instruction; None where it has none."""
    instruction: bytes
    """The instruction that enters the kernel."""
    back: int
    """Bytes from the program counter back to the instruction, in a thread that the kernel has just returned to."""
    mmap: int
    seccomp: int


MACHINES = {
    # r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs gs ds es fs gs
    "x86_64": Machine(27, 10, (14, 13, 12, 7, 9, 8), 16, 15, None, b"\x0f\x05", 2, 9, 317),
    # x0 ... x30 sp pc pstate
    "aarch64": Machine(34, 8, (0, 1, 2, 3, 4, 5), 32, None, 33, b"\x01\x00\x00\xd4", 4, 222, 277),
}
BRANCH_TYPE = 0xC00
"""Bits of arm64's flags that are set behind an indirect jump, and which fit only some instructions."""
MAP_PRIVATE_ANONYMOUS, READ_WRITE, PAGE = 0x22, 0x3, 4096


class UnusableThread(TracingFault):
    """A thread whose registers point into no memory; nothing of it has been changed."""


class Thread:
    """A thread of another process under this thread's hands."""

    def __init__(self, tid: int) -> None:
        """Take hold of a running thread and ask it to stop. Raises `ProcessLookupError` when it has ended."""
        self.tid = tid
        self.stopped = False
        self._signal = 0
        """A signal that it was about to take when it stopped, and takes when it goes on."""
        try:
            _ptrace(SEIZE, tid, 0, OPTIONS)
        except PermissionError:
            # One that was made by a thread which is held already can be held from its birth.
            if not _is_ours(tid):
                raise
        _ptrace(INTERRUPT, tid, 0, 0)

    def look(self) -> bool:
        """Say whether it has stopped, without waiting. Raises `ProcessLookupError` when it has ended."""
        if not self.stopped and (status := self._status(wait=False)):
            self.stopped = True
            self._signal = os.WSTOPSIG(status) if status >> 16 == 0 else 0
        return self.stopped

    def release(self) -> None:
        """Let a stopped thread go on where it was. One that has been killed meanwhile is passed over."""
        with contextlib.suppress(ProcessLookupError):
            _ptrace(DETACH, self.tid, 0, self._signal)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Caller]:
        """Prepare a stopped thread for calls of ours; put back all that was changed.

        Raises `TracingFault` when the thread does not do what it is told; it must not go on then.
        """
        registers, mask = self._registers(), self._signal_mask()
        place, replaced = self._instruction(registers)
        _ptrace(SET_OPTIONS, self.tid, 0, OPTIONS | LEFT_CALLS)
        # With every signal blocked, none is delivered in the midst of a call of ours.
        self._set_signal_mask(EVERY_SIGNAL)
        yield Caller(self, registers, place)
        # The kernel makes an interrupted call again when a thread leaves a stop of this kind; it would not behind the
        # stop at the end of a call.
        _ptrace(INTERRUPT, self.tid, 0, 0)
        self._go_on(CONT, EVENT_STOP)
        if replaced is not None:
            self._poke(place, replaced)
        self._set_registers(registers)
        self._set_signal_mask(mask)
        _ptrace(SET_OPTIONS, self.tid, 0, OPTIONS)
        self._signal = 0  # it has been at another stop since

    def _instruction(self, registers: list[int]) -> tuple[int, bytes | None]:
        """Find or write an instruction that enters the kernel. Returns its place, and the word that it has replaced."""
        machine = this_machine()
        wanted, counter = machine.instruction, registers[machine.counter]
        # A thread that waits in a call stands at such an instruction, or right behind it.
        for place in (counter - machine.back, counter):
            with contextlib.suppress(OSError):
                if self._read(place)[: len(wanted)] == wanted:
                    return place, None
        try:
            replaced = self._read(counter)
            self._poke(counter, wanted + replaced[len(wanted) :])
        except OSError as error:
            raise UnusableThread(f"a thread stands where no instruction can be written ({error})") from error
        return counter, replaced

    def _status(self, *, wait: bool) -> int:
        """Return what waitpid says of a new stop; 0 where there is none. Raises `ProcessLookupError` when it ends."""
        try:
            tid, status = os.waitpid(self.tid, ALL_THREADS if wait else ALL_THREADS | os.WNOHANG)
        except ChildProcessError:
            raise ProcessLookupError(errno.ESRCH, "the thread is not traced") from None
        if tid == 0:
            return 0
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError(errno.ESRCH, "the thread has ended")
        return status

    def _go_on(self, request: int, wanted: int) -> None:
        """Resume until a stop of the wanted kind: `ENTRY` to `LEFT_TO_US`, or `EVENT_STOP`.

        This waits for as long as it takes, or until somebody kills the process.
        """
        for _ in range(STOPS):
            _ptrace(request, self.tid, 0, 0)
            status = self._status(wait=True)
            event, number = status >> 16, os.WSTOPSIG(status)
            at_call = event == EVENT_SECCOMP or number == signal.SIGTRAP | 0x80
            kind = struct.unpack_from("=B", self.call())[0] if at_call else event
            if kind == wanted:
                return
            # A signal that cannot be blocked: its instruction was none, or lies in no memory.
            if event == 0 and not at_call and number not in (signal.SIGSTOP, signal.SIGCONT):
                raise TracingFault("a thread that was told to make a call fails in it")
        raise TracingFault("a thread that was told to make a call does something else")

    def call(self) -> bytes:
        """Return the struct ptrace_syscall_info of a thread that is stopped at a call."""
        buffer = ctypes.create_string_buffer(CALL_BYTES)
        _ptrace(GET_CALL, self.tid, CALL_BYTES, ctypes.addressof(buffer))
        return buffer.raw

    def _registers(self) -> list[int]:
        machine = this_machine()
        buffer = ctypes.create_string_buffer(machine.registers * WORD)
        vector = struct.pack("@PN", ctypes.addressof(buffer), len(buffer))
        held = ctypes.create_string_buffer(vector)
        _ptrace(GET_REGISTERS, self.tid, GENERAL_REGISTERS, ctypes.addressof(held))
        return list(struct.unpack(f"={machine.registers}Q", buffer.raw))

    def _set_registers(self, registers: list[int]) -> None:
        buffer = ctypes.create_string_buffer(struct.pack(f"={len(registers)}Q", *registers))
        held = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(buffer), len(registers) * WORD))
        _ptrace(SET_REGISTERS, self.tid, GENERAL_REGISTERS, ctypes.addressof(held))

    def _signal_mask(self) -> bytes:
        buffer = ctypes.create_string_buffer(WORD)
        _ptrace(GET_SIGNAL_MASK, self.tid, WORD, ctypes.addressof(buffer))
        return buffer.raw

    def _set_signal_mask(self, mask: bytes) -> None:
        buffer = ctypes.create_string_buffer(mask, WORD)
        _ptrace(SET_SIGNAL_MASK, self.tid, WORD, ctypes.addressof(buffer))

    def _read(self, place: int) -> bytes:
        """Return the word of memory at a place. Raises OSError where there is none."""
        return struct.pack("=q", _ptrace(PEEK, self.tid, place, 0))

    def _poke(self, place: int, data: bytes) -> None:
        """Write whole words, whatever the memory's rights."""
        for offset in range(0, len(data), WORD):
            word = data[offset : offset + WORD].ljust(WORD, b"\0")
            _ptrace(POKE, self.tid, place + offset, int.from_bytes(word, "little"))


@dataclass
class Caller:
    """Makes calls in a thread that is prepared for them."""

    thread: Thread
    registers: list[int]
    """Those of the thread as it was stopped."""
    place: int
    """Address of an instruction that enters the kernel."""

    def call(self, number: int, *arguments: int, asks_us: bool = False) -> int:
        """Make one call and return the kernel's answer, a negative errno where it fails.

        `asks_us` says that a filter leaves this call to the tracer. Raises `TracingFault` when the call that is entered
        is another one than was asked for.
        """
        machine = this_machine()
        registers = list(self.registers)
        given = (*arguments, *[0] * (6 - len(arguments)))
        for place, value in zip(machine.arguments, given, strict=True):
            registers[place] = value
        registers[machine.number], registers[machine.counter] = number, self.place
        if machine.origin is not None:
            registers[machine.origin] = (1 << 64) - 1
        if machine.flags is not None:
            registers[machine.flags] &= ~BRANCH_TYPE
        self.thread._set_registers(registers)
        for kind in (ENTRY, LEFT_TO_US) if asks_us else (ENTRY,):
            self.thread._go_on(TO_NEXT_CALL, kind)
            if struct.unpack_from("=7Q", self.thread.call(), 24) != (number, *given):
                raise TracingFault("a thread that was told to make a call makes another one")
        self.thread._go_on(TO_NEXT_CALL, EXIT)
        return int(struct.unpack_from("=q", self.thread.call(), 24)[0])

    def install_filter(self, program: bytes) -> None:
        """Put a seccomp program on every thread of the process. Raises `TracingFault` when the kernel refuses.

        The program lies in memory that is made for it: nothing that the process has begun (a read straight from a disk
        for one) can write there.
        """
        machine = this_machine()
        size = -(-(len(program) + 2 * WORD) // PAGE) * PAGE
        memory = self.call(machine.mmap, 0, size, READ_WRITE, MAP_PRIVATE_ANONYMOUS, (1 << 64) - 1, 0)
        if -PAGE < memory < 0:
            raise TracingFault(f"no memory for a filter ({os.strerror(-memory)})")
        header = struct.pack("=HxxxxxxQ", len(program) // 8, memory + 2 * WORD)
        self.thread._poke(memory, header + program)
        set_mode_filter, all_threads = 1, 1
        answer = self.call(machine.seccomp, set_mode_filter, all_threads, memory, asks_us=True)
        if answer != 0:
            why = os.strerror(-answer) if answer < 0 else "a thread has another filter"
            raise TracingFault(f"the kernel takes no filter ({why})")


def this_machine() -> Machine:
    """Return the layout of this machine. Raises `TracingFault` where none is written."""
    try:
        return MACHINES[platform.machine()]
    except KeyError:
        raise TracingFault(f"no registers are written down for {platform.machine()}") from None


def _is_ours(tid: int) -> bool:
    """Say whether this process traces a thread already."""
    try:
        os.waitid(os.P_PID, tid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | ALL_THREADS)
    except ChildProcessError:
        return False
    return True


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    return library


def _ptrace(request: int, tid: int, address: int, data: int) -> int:
    """ptrace(2). Raises OSError."""
    ctypes.set_errno(0)
    answer = _library().ptrace(
        ctypes.c_long(request), ctypes.c_long(tid), ctypes.c_void_p(address), ctypes.c_void_p(data)
    )
    number = ctypes.get_errno()
    if answer == -1 and number:
        raise OSError(number, f"ptrace: {os.strerror(number)}")
    return int(answer)
