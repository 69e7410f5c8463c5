"""The process that talks to one tracker: `python -m autoresearch.core.track.child NAME LOG`.

Reads JSON lines: {"start": ...}, {"log": ...}, {"end": ...}. Answers on standard output: {"place": words},
{"told": step} and {"failed": words}. What the library prints goes to the file LOG. Ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from autoresearch.core.track.tracker import TrackedRun, Tracker


def make_tracker(name: str) -> Tracker:
    """An adapter by its library's name. Raises `ImportError` without the library."""
    module = importlib.import_module(f"autoresearch.core.track.{name}")
    return cast("Tracker", getattr(module, f"{name.capitalize()}Tracker")())


def serve(name: str, lines: Any, answer: Callable[[dict[str, Any]], None]) -> None:
    """Do what the lines say until they end. After a failure to start nothing more is tried."""
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
        except Exception as error:
            answer({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"})


def main() -> None:
    """Keep standard output for the answers, whatever the library prints."""
    name, log = sys.argv[1:]
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
