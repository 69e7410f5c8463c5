"""The process that reports to one tracker: `python -m autoresearch.core.track.child NAME LOG`.

It reads JSON lines from standard input: {"start": ...}, {"log": ...}, {"end": ...}. It answers on standard output:
{"place": where a person finds the run}, {"told": step}, {"failed": reason}. Everything that the library prints goes to
the file LOG. The process ends when its input ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from autoresearch.core.track.tracker import TrackedRun, Tracker


def make_tracker(name: str) -> Tracker:
    """Make the adapter of that name. Raises `ImportError` when its library is not installed."""
    return cast("Tracker", importlib.import_module(f"autoresearch.core.track.adapters.{name}").TRACKER())


def serve(name: str, lines: Iterable[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Pass every line on to the tracker and answer. After a failure to start, ignore the rest."""
    tracker: Tracker | None = None
    for line in lines:
        message = json.loads(line)
        try:
            if "start" in message:
                facts = message["start"]
                started = make_tracker(name)
                place = started.start(TrackedRun(**{**facts, "folder": Path(facts["folder"])}))
                tracker = started
                answer({"place": place})
            elif tracker is not None and "log" in message:
                tracker.log(**message["log"])
                answer({"told": message["log"]["step"]})
            elif tracker is not None and "end" in message:
                tracker.end(**message["end"])
        except Exception as error:  # the libraries' exceptions share no base class
            answer({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"})


def main() -> None:
    """Redirect the library's output to the log file, then serve standard input."""
    name, log = sys.argv[1:]
    # The answers get a copy of standard output; descriptors 1 and 2 are the log's from here on. A library that prints,
    # or starts a program that prints, cannot mix its lines with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    serve(name, sys.stdin, answer)


if __name__ == "__main__":
    main()
