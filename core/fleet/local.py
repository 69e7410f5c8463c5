"""Trials on this machine's one device, one at a time, each supervised by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from autoresearch.core.fleet.executor import Observer
from autoresearch.core.trial.result import TrialRequest, TrialResult
from autoresearch.core.trial.supervisor import TrialCancelled, run_trial


class LocalHandle:
    """A trial that runs, or waits for the device."""

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
    """Implements `Executor` for one device."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trial")
        self._handles: list[LocalHandle] = []

    def capacity(self) -> int:
        """One: there is one device."""
        return 1

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """Start the trial when the device is free."""
        cancel = threading.Event()
        handle = LocalHandle(self._pool.submit(run_trial, request, observer=observer, cancel=cancel), cancel)
        self._handles = [known for known in self._handles if not known.done()] + [handle]
        return handle

    def close(self) -> None:
        """Cancel what is in flight; returns when no process is left."""
        for handle in self._handles:
            handle.cancel()
        self._pool.shutdown()
