"""Several devices without devices: trials end in an order that the test chooses."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from loop_fixtures import copy_of, git, make_workspace

from autoresearch.core.errors import ProposalError
from autoresearch.core.events import Observer, Trained
from autoresearch.core.proposal import History, Proposal, Researcher
from autoresearch.core.trial.request import TrialRequest, TrialResult

Change = dict[str, int]


def two_constants(folder: Path) -> Path:
    """A workspace whose train file has WIDTH and DEPTH on neighbouring lines, and HEIGHT in a function."""
    return copy_of(_with_two_constants, folder)


def _with_two_constants(folder: Path) -> None:
    make_workspace(folder)
    train = folder / "backends/null/train.py"
    source = train.read_text().replace("WIDTH = 8  # channels\n", "WIDTH = 8  # channels\nDEPTH = 10\n")
    train.write_text(source.replace("    return", "    HEIGHT = 10\n    return"))
    git(folder, "commit", "-q", "-a", "-m", "two constants")


def numbers(source: str) -> Change:
    """WIDTH, DEPTH and HEIGHT of a train file."""
    return {name: int(value) for name, value in re.findall(r"^ *(WIDTH|DEPTH|HEIGHT) = (\d+)", source, re.M)}


def edit(source: str, change: Change) -> str:
    for name, value in change.items():
        source = re.sub(rf"^( *{name}) = \d+", rf"\1 = {value}", source, flags=re.M)
    return source


class Edits(Researcher):
    """Proposes edits of the incumbent from a list, one a call."""

    name = "edits"

    def __init__(self, *changes: Change, ahead: bool = False) -> None:
        self.changes, self.thinks_ahead = list(changes), ahead
        self.histories: list[History] = []

    def propose(self, history: History) -> Proposal:
        self.histories.append(history)
        if len(self.histories) > len(self.changes):
            raise ProposalError("no edit is left.")
        change = self.changes[len(self.histories) - 1]
        what = ", ".join(f"{name} {value}" for name, value in change.items())
        return Proposal(edit(history.incumbent.source, change), what, "shape", researcher=self.name)


class Field:
    """An executor with several devices. Its score is the sum of the numbers over ten.

    `order` is the order in which trials end: each entry says which of those in flight is next, oldest first.
    """

    def __init__(self, devices: int, order: Sequence[int] = ()) -> None:
        self.devices, self.order = devices, list(order)
        self.requests: list[TrialRequest] = []
        self.flying: list[FieldHandle] = []
        self.released: FieldHandle | None = None
        self.seen: set[int] = set()
        self.most = self.cancelled = 0

    def capacity(self) -> int:
        return self.devices

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> FieldHandle:
        self.requests.append(request)
        request.folder.mkdir(parents=True)
        handle = FieldHandle(self, request)
        self.flying.append(handle)
        self.most = max(self.most, len(self.flying))
        assert self.most <= self.devices
        if observer is not None:
            observer(Trained())
        return handle

    def poll(self, handle: FieldHandle) -> bool:
        """One trial ends every time the loop has looked at all of them."""
        if id(handle) in self.seen and self.released is None:
            self.seen.clear()
            self.release()
        self.seen.add(id(handle))
        return self.released is handle

    def release(self) -> None:
        self.released = self.flying[(self.order.pop(0) if self.order else 0) % len(self.flying)]

    def tried(self) -> list[Change]:
        return [numbers(request.source) for request in self.requests]

    def close(self) -> None:
        pass


class FieldHandle:
    def __init__(self, executor: Field, request: TrialRequest) -> None:
        self.executor, self.request = executor, request
        self.call: Callable[[], None] = lambda: None

    def on_done(self, call: Callable[[], None]) -> None:
        self.call = call

    def done(self) -> bool:
        done = self.executor.poll(self)
        self.call()
        return done

    def result(self, timeout: float | None = None) -> TrialResult:
        assert self.executor.released is self
        self.executor.flying.remove(self)
        self.executor.released = None
        self.executor.seen.clear()
        measured = {"val_bpb": sum(numbers(self.request.source).values()) / 10, "tokens": 1000, "wall_seconds": 3.0}
        common = {"status": "ok", "seed": self.request.seed, "backend": "null", "preset": "demo"}
        return TrialResult.model_validate({**common, **measured})

    def cancel(self) -> None:
        self.executor.cancelled += 1
        self.executor.flying.remove(self)
