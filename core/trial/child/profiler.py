"""Tracing a few batches in the middle of a training, in the train child. Frozen code around the train file's loop."""

from __future__ import annotations

import contextlib
import cProfile
import gzip
import json
import time
from pathlib import Path
from types import CodeType
from typing import Any

from autoresearch.backends.contract import Clock, Operation, Profile, Trace
from autoresearch.core.trial.child.channel import Channel, Profiled

SKIP_BATCHES = 5
"""The first ones may still compile or allocate."""
SKIP_PROGRESS = 0.1
WINDOW_BATCHES = 16
WINDOW_SECONDS = 5.0
OPERATIONS = 15


class Profiler:
    """Watches the feed, starts the trace when training is under way, and sends what it says."""

    def __init__(self, runtime: Any, clock: Clock, path: Path, channel: Channel) -> None:
        self._runtime, self._clock, self._path, self._channel = runtime, clock, path, channel
        self._trace: Trace = runtime.trace() or HostTrace()
        self._batches = self._first = 0
        self._started: float | None = None
        self._done = False
        self._wait = contextlib.ExitStack()

    def asked(self) -> None:
        """The loop wants a batch: start, stop, or mark the waiting."""
        if self._started is None and not self._done:
            if self._batches >= SKIP_BATCHES and self._clock.progress >= SKIP_PROGRESS:
                self._runtime.synchronize()
                self._first = self._batches
                self._started = time.perf_counter()
                self._trace.start()
        elif self._started is not None:
            long = time.perf_counter() - self._started >= WINDOW_SECONDS
            if long or self._batches - self._first >= WINDOW_BATCHES:
                self.close()
        if self._started is not None:
            self._wait.enter_context(self._trace.waiting())

    def given(self) -> None:
        """The batch is there."""
        self._wait.close()
        self._batches += 1

    def close(self) -> None:
        """Stop the trace, if it runs, and send what it says."""
        if self._started is None:
            return
        self._runtime.synchronize()
        seconds, self._started, self._done = time.perf_counter() - self._started, None, True
        self._trace.stop()
        profile = self._trace.profile()
        operations = [[one.name, one.seconds, one.calls] for one in profile.operations[:OPERATIONS]]
        batches, sections = self._batches - self._first, dict(profile.sections)
        self._channel.send(Profiled(seconds, batches, sections, operations, profile.note))
        self._trace.write(self._path)


class HostTrace:
    """For a framework without a profiler: the host's functions, and when the loop waited for data."""

    def __init__(self) -> None:
        self._profiler = cProfile.Profile()
        self._marks: list[tuple[float, float]] = []
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = time.perf_counter()
        self._profiler.enable()

    @contextlib.contextmanager
    def waiting(self) -> Any:
        """One mark."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._marks.append((started, time.perf_counter()))

    def stop(self) -> None:
        """End."""
        self._profiler.disable()
        self._ended = time.perf_counter()

    def profile(self) -> Profile:
        """Waiting for data and the rest; the host's functions by their own time."""
        operations = sorted(
            (Operation(_name(entry.code), entry.inlinetime, entry.callcount) for entry in self._profiler.getstats()),
            key=lambda one: -one.seconds,
        )
        total = self._ended - self._began
        data = sum(end - start for start, end in self._marks)
        sections = {"data wait": data, "training step": max(0.0, total - data)}
        note = (
            "This framework has no profiler here: these are the host's functions. What the framework does counts for "
            "the function that calls it; a lazy one does all of it, forward, backward and step, where it is evaluated."
        )
        return Profile(sections, operations, note)

    def write(self, path: Path) -> None:
        """The loop as alternating spans of waiting and working."""
        events, last = [], self._began
        for start, end in [*self._marks, (self._ended, self._ended)]:
            events += [_span("step", last, start), _span("data wait", start, end)]
            last = end
        with gzip.open(path, "wt", encoding="utf-8") as file:
            json.dump({"traceEvents": events}, file)


def _span(name: str, start: float, end: float) -> dict[str, Any]:
    """Chrome's tracing counts microseconds."""
    return {"name": name, "ph": "X", "ts": 1e6 * start, "dur": 1e6 * (end - start), "pid": 0, "tid": 0}


def _name(code: CodeType | str) -> str:
    if isinstance(code, str):
        return code.strip("<>").replace("built-in method ", "built-in ")
    return f"{code.co_name} ({Path(code.co_filename).name}:{code.co_firstlineno})"
