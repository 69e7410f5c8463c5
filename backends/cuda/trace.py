"""A trace by PyTorch's profiler. Part of the runtime; imported only when a trial is profiled."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from autoresearch.backends.contract import Operation, Profile

WAITING = "waiting for a batch"
BACKWARD = "autograd::engine::evaluate_function"
"""Beginning of the profiler's name for every node of the backward pass."""


class TorchTrace:
    """Implements `Trace`: records host events, and device events where there is a GPU."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        self._profiler = profile(activities=activities)

    def start(self) -> None:
        """Begin recording."""
        self._profiler.start()

    def waiting(self) -> AbstractContextManager[Any]:
        """Mark a named range of the trace."""
        return record_function(WAITING)

    def stop(self) -> None:
        """End recording."""
        self._profiler.stop()

    def write(self, path: Path) -> None:
        """Write the recording in the format of Chrome's tracing. The name must end in .gz."""
        self._profiler.export_chrome_trace(str(path))

    def profile(self) -> Profile:
        """Summarise parts of a step by the host's clock and operations by their own time, the GPU's if there is one."""
        events = [event for event in self._profiler.events() if event.device_type == torch.autograd.DeviceType.CPU]
        own: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for event in events:
            if event.name != WAITING:
                micros = event.self_device_time_total if self._cuda else event.self_cpu_time_total
                own[event.name][0] += 1e-6 * micros
                own[event.name][1] += 1
        operations = sorted((Operation(name, s, int(n)) for name, (s, n) in own.items()), key=lambda one: -one.seconds)
        note = "By PyTorch's profiler; the parts are the host's time" + (
            ", which runs ahead of the GPU; the operations are the GPU's." if self._cuda else ", tracing included."
        )
        return Profile(sections(events), operations, note)


def sections(events: list[Any]) -> dict[str, float]:
    """Divide the time into waiting, forward, backward and the rest. Return seconds, summed over the batches.

    Backward lasts from the first to the last node that autograd evaluates between two batches. The time before it is
    forward, the time after it the optimizer step and logging. Without a backward pass, all of it is forward.
    """
    waits = sorted((event.time_range.start, event.time_range.end) for event in events if event.name == WAITING)
    nodes = sorted((e.time_range.start, e.time_range.end) for e in events if e.name.startswith(BACKWARD))
    starts = [start for start, _ in nodes]
    end = max((event.time_range.end for event in events), default=0.0)
    forward = backward = after = 0.0
    for (_, begin), until in zip(waits, [*(start for start, _ in waits[1:]), end], strict=True):
        inside = nodes[bisect_left(starts, begin) : bisect_left(starts, until)]
        first, last = (inside[0][0], max(stop for _, stop in inside)) if inside else (until, until)
        forward, backward, after = forward + first - begin, backward + last - first, after + until - last
    named = {
        "data wait": sum(stop - start for start, stop in waits),
        "forward": forward,
        "backward": backward,
        "optimizer and the rest": after,
    }
    return {name: 1e-6 * micros for name, micros in named.items()}
