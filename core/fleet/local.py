"""Trials on this machine's devices: one at a time on each, supervised by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace

from autoresearch.core.events import Observer
from autoresearch.core.fleet.executor import TrialLost, TrialMisplaced
from autoresearch.core.fleet.slots import THREAD_VARIABLES, WHOLE_MACHINE, Claim, Slot, bind
from autoresearch.core.trial.request import TrialRequest, TrialResult
from autoresearch.core.trial.supervisor import TrialCancelled, TrialInterrupted, run_trial


class LocalHandle:
    """Implements `Handle` for a trial that a thread of this process supervises."""

    def __init__(self, future: Future[TrialResult], cancel: threading.Event) -> None:
        self._future = future
        self._cancel = cancel

    def done(self) -> bool:
        """Return whether there is a result, or a reason why there is none."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> TrialResult:
        """Wait for the result.

        Raises `TimeoutError`, `TrialError` if it never started or was cancelled, `TrialMisplaced` if its device is
        gone, `TrialLost` if the system killed a process of the core's own.
        """
        try:
            return self._future.result(timeout)
        except FutureTimeout as error:
            raise TimeoutError(f"no result within {timeout} s") from error
        except CancelledError as error:
            raise TrialCancelled("the trial was cancelled before it started.") from error

    def on_done(self, call: Callable[[], None]) -> None:
        """Call `call` from the trial's thread once the trial has ended."""
        self._future.add_done_callback(lambda _: call())

    def cancel(self) -> None:
        """Kill every process of the trial. Returns when none is left."""
        self._cancel.set()
        if not self._future.cancel():
            self._future.exception()  # waits until the trial's thread has ended


class LocalExecutor:
    """Implements `Executor` for the devices of one machine."""

    def __init__(self, slots: Sequence[Slot] = (WHOLE_MACHINE,), claim: Claim | None = None) -> None:
        """Run trials on these slots. `claim` keeps other loops off them; it is released by `close`."""
        self.slots, self._claim = tuple(slots), claim
        self._all = self.slots
        self._named, self._lock = len(self.slots) > 1, threading.Lock()
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._pool = ThreadPoolExecutor(max_workers=len(self.slots), thread_name_prefix="trial")
        self._handles: list[LocalHandle] = []

    def capacity(self) -> int:
        """Count the slots: each runs one trial. One whose device went away is none any more (see `_retire`)."""
        return len(self.slots)

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """Start the trial as soon as a slot is free."""
        cancel = threading.Event()
        handle = LocalHandle(self._pool.submit(self._run, request, observer, cancel), cancel)
        self._handles = [known for known in self._handles if not known.done()] + [handle]
        return handle

    def device_of(self, place: str | None) -> tuple[tuple[str, str], ...]:
        """Return the variables that choose the device of a result's place; none where there is no choice."""
        slot = self._slot_of(place)
        chosen = () if slot is None else slot.environment
        # The numbers of threads choose no device, and a framework's description may depend on them.
        return tuple((name, value) for name, value in chosen if name not in THREAD_VARIABLES)

    def give_up(self, place: str | None) -> bool:
        """Start no further trial at a result's place, if it has a device of its own and others are left.

        Return whether it gets none.
        """
        slot = self._slot_of(place)
        return slot is not None and bool(self.device_of(place)) and self._retire(slot)

    def _slot_of(self, place: str | None) -> Slot | None:
        if not self._named:
            return self._all[0]
        return next((slot for slot in self._all if slot.label == place), None)

    def close(self) -> None:
        """Cancel the running trials. Returns when no process is left."""
        for handle in self._handles:
            handle.cancel()
        self._pool.shutdown()
        if self._claim is not None:
            self._claim.release()

    def _run(self, request: TrialRequest, observer: Observer | None, cancel: threading.Event) -> TrialResult:
        # It waits only where a slot has been given up; one may be given up while it is free.
        while (slot := self._free.get()) not in self.slots:
            pass
        try:
            result = run_trial(on_slot(request, slot), observer=observer, cancel=cancel)
            if request.device_kind and result.device_kind not in (None, request.device_kind) and self._retire(slot):
                left = f"{len(self.slots)} of this machine's devices are left"
                raise TrialMisplaced(f"{slot.label} is gone, the trial ran on {result.device_kind}; {left}")
            return result.model_copy(update={"place": slot.label}) if self._named else result
        except TrialInterrupted as error:
            raise TrialLost(error.message.rstrip(".")) from error
        finally:
            if slot in self.slots:
                self._free.put(slot)

    def _retire(self, slot: Slot) -> bool:
        """Give up a slot whose device went away; return whether it was given up: the last one stays.

        Its trials end within seconds, so it would be free whenever one is to start, and spoil one after another.
        """
        with self._lock:
            if len(self.slots) > 1:
                self.slots = tuple(one for one in self.slots if one != slot)
            return slot not in self.slots


def on_slot(request: TrialRequest, slot: Slot) -> TrialRequest:
    """Return the request with the slot's environment and memory limit, and bind the calling thread to its cores."""
    bind(slot.cores)
    memory = request.memory_limit_mb or slot.memory_mb
    return replace(request, environment=(*request.environment, *slot.environment), memory_limit_mb=memory)
