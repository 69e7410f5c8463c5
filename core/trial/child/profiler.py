"""Trace a few batches in the middle of a training: frozen code in the train child, around the train file's loop."""

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
"""Batches before the trace: the first ones may still compile or allocate."""
SKIP_PROGRESS = 0.1
"""Share of the time budget before the trace."""
WINDOW_BATCHES = 16
"""Batches of the trace, at most."""
WINDOW_SECONDS = 5.0
"""Seconds of the trace, at most."""
OPERATIONS = 15
"""Longest operations that are sent."""


class Profiler:
    """Watches the feed, traces some batches when training is under way, and sends the profile."""

    def __init__(self, runtime: Any, clock: Clock, path: Path, channel: Channel) -> None:
        self._runtime, self._clock, self._path, self._channel = runtime, clock, path, channel
        self._trace: Trace = runtime.trace() or HostTrace()
        self._batches = self._first = 0
        self._started: float | None = None
        self._done = False
        self._wait = contextlib.ExitStack()

    def asked(self) -> None:
        """Start or stop the trace, or mark the waiting: the loop wants a batch."""
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
        """Count a batch, and end the waiting."""
        self._wait.close()
        self._batches += 1

    def close(self) -> None:
        """Stop the trace, if it runs, and send its profile."""
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
    """The trace of a framework without a profiler: the host's functions, and when the loop waited for data."""

    def __init__(self) -> None:
        self._profiler = cProfile.Profile()
        self._marks: list[tuple[float, float]] = []
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Begin the trace."""
        self._began = time.perf_counter()
        self._profiler.enable()

    @contextlib.contextmanager
    def waiting(self) -> Any:
        """Mark a stretch of waiting for data."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._marks.append((started, time.perf_counter()))

    def stop(self) -> None:
        """End the trace."""
        self._profiler.disable()
        self._ended = time.perf_counter()

    def profile(self) -> Profile:
        """Return two sections, waiting and the rest, and the host's functions by their own time."""
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
        """Write the loop as alternating spans of waiting and working, in the format of Chrome's tracing."""
        events, last = [], self._began
        for start, end in [*self._marks, (self._ended, self._ended)]:
            events += [_span("step", last, start), _span("data wait", start, end)]
            last = end
        with gzip.open(path, "wt", encoding="utf-8") as file:
            json.dump({"traceEvents": events}, file)


def _span(name: str, start: float, end: float) -> dict[str, Any]:
    """Return one span, in microseconds as Chrome's tracing wants them."""
    return {"name": name, "ph": "X", "ts": 1e6 * start, "dur": 1e6 * (end - start), "pid": 0, "tid": 0}


def _name(code: CodeType | str) -> str:
    if isinstance(code, str):
        return code.strip("<>").replace("built-in method ", "built-in ")
    return f"{code.co_name} ({Path(code.co_filename).name}:{code.co_firstlineno})"
