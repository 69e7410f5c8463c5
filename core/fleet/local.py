"""Trials on this machine's devices, one on each at a time, each supervised by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace

from autoresearch.core.fleet.executor import Observer
from autoresearch.core.fleet.slots import HOME, Claim, Slot, bind
from autoresearch.core.trial.request import TrialRequest, TrialResult
from autoresearch.core.trial.supervisor import TrialCancelled, run_trial


class LocalHandle:
    """A trial that runs, or waits for a device."""

    def __init__(self, future: Future[TrialResult], cancel: threading.Event) -> None:
        self._future = future
        self._cancel = cancel

    def done(self) -> bool:
        """Whether there is a result, or a reason why there is none."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> TrialResult:
        """Wait for the result. Raises `TimeoutError`, or `TrialError` if it never started or was cancelled."""
        try:
            return self._future.result(timeout)
        except FutureTimeout as error:
            raise TimeoutError(f"no result within {timeout} s") from error
        except CancelledError as error:
            raise TrialCancelled("the trial was cancelled before it started.") from error

    def on_done(self, call: Callable[[], None]) -> None:
        """Call back, from the trial's thread, once it has ended."""
        self._future.add_done_callback(lambda _: call())

    def cancel(self) -> None:
        """Kill every process of the trial; returns when none is left."""
        self._cancel.set()
        if not self._future.cancel():
            self._future.exception()


class LocalExecutor:
    """Implements `Executor` for the devices of one machine."""

    def __init__(self, slots: Sequence[Slot] = (HOME,), claim: Claim | None = None) -> None:
        """`claim` is what keeps other loops off these slots; it is released at the end."""
        self.slots, self._claim = tuple(slots), claim
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._pool = ThreadPoolExecutor(max_workers=len(self.slots), thread_name_prefix="trial")
        self._handles: list[LocalHandle] = []

    def capacity(self) -> int:
        """One trial a slot."""
        return len(self.slots)

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """Start the trial when a device is free."""
        cancel = threading.Event()
        handle = LocalHandle(self._pool.submit(self._run, request, observer, cancel), cancel)
        self._handles = [known for known in self._handles if not known.done()] + [handle]
        return handle

    def close(self) -> None:
        """Cancel what is in flight; returns when no process is left."""
        for handle in self._handles:
            handle.cancel()
        self._pool.shutdown()
        if self._claim is not None:
            self._claim.release()

    def _run(self, request: TrialRequest, observer: Observer | None, cancel: threading.Event) -> TrialResult:
        slot = self._free.get()  # there is one: there are as many threads as slots
        try:
            return run_trial(on_slot(request, slot), observer=observer, cancel=cancel)
        finally:
            self._free.put(slot)


def on_slot(request: TrialRequest, slot: Slot) -> TrialRequest:
    """The request as that slot's; the calling thread is bound to its cores."""
    bind(slot.cores)
    memory = request.memory_limit_mb or slot.memory_mb
    return replace(request, environment=(*request.environment, *slot.environment), memory_limit_mb=memory)
