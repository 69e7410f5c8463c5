"""The account of a run's calls to language models: one JSON line for each event in the run's folder.

Calls in flight count against the spending limit.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.core.proposal import Cost, FailedProposalError


class OverBudgetError(FailedProposalError):
    """The next call could pass `--max-usd`. Its cost is that of earlier tries of the same call."""


@dataclass
class _Call:
    model: str
    ceiling: float
    """The most that it can cost, in dollars."""


@dataclass(frozen=True)
class Bill:
    """Sums over the calls of a run that brought a bill."""

    usd: float = 0.0
    usd_uncached: float | None = 0.0
    """Dollars without any cache; None where a call does not tell."""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    calls: int = 0
    unpriced: int = 0
    """Calls with a reply whose price nobody knows, which the other fields leave out."""


class Spending:
    """The account of a run, safe to use from several threads. A resumed run starts from what it spent before."""

    def __init__(self, path: Path | None = None, max_usd: float | None = None) -> None:
        """`path` is the file of events, None keeps them in memory; `max_usd` is the spending limit in dollars."""
        self.max_usd = max_usd
        self._path, self._lock = path, threading.Lock()
        self._open: dict[str, _Call] = {}
        self._doubtful = 0.0
        self.bill = Bill()
        self._count = 0
        self._by_model: dict[str, list[float]] = {}
        self._formats: dict[tuple[str, str], list[bool]] = {}
        for event in _events(path):
            self._take(event)
        # Calls that were in flight when an earlier process died may have been billed.
        self._doubtful += sum(call.ceiling for call in self._open.values())
        self._open.clear()

    @property
    def spent(self) -> float:
        """Dollars known to be spent."""
        return self.bill.usd

    @property
    def committed(self) -> float:
        """Dollars that may be spent: known ones, calls in flight and calls whose reply was lost, at their ceilings."""
        return self.bill.usd + self._doubtful + sum(call.ceiling for call in self._open.values())

    def start(self, model: str, ceiling: float | None) -> str:
        """Reserve a call's ceiling, in dollars; returns its name. Raises `OverBudgetError` when it does not fit."""
        with self._lock:
            if self.max_usd is not None:
                if ceiling is None:
                    fix = f"give it, as in --price {model}=IN/OUT (dollars per million tokens), or leave --max-usd away"
                    raise OverBudgetError(f"--max-usd cannot be kept: the price of {model} is not known.", fix=fix)
                if self.committed + ceiling > self.max_usd + 1e-12:
                    raise OverBudgetError(
                        f"the next call could cost ${ceiling:.4f} and pass --max-usd {self.max_usd:g}"
                        f" (${self.committed:.4f} are spent or in flight).",
                        fix="raise --max-usd, or go on with --researcher tuner",
                    )
            self._count += 1
            name = f"{os.getpid()}-{time.time_ns()}-{self._count}"
            self._record({"event": "started", "call": name, "model": model, "ceiling": ceiling or 0.0})
            return name

    def end(self, name: str, outcome: str, cost: Cost | None = None, *, doubtful: bool = False) -> None:
        """Settle a call. `cost` is None where no reply came; `doubtful` says that it may be billed all the same.

        A reply without known dollars was billed all the same, so it counts at its ceiling too.
        """
        doubtful = doubtful or (cost is not None and cost.usd is None)
        names = ("usd", "usd_uncached", "tokens_in", "tokens_cached", "tokens_out")
        paid = {} if cost is None else {name: getattr(cost, name) for name in names}
        with self._lock:
            self._record({"event": "ended", "call": name, "outcome": outcome, "doubtful": doubtful, **paid})

    def judge_format(self, model: str, form: str, ok: bool) -> None:
        """Record whether a reply in this format could be applied."""
        with self._lock:
            self._record({"event": "edit", "model": model, "format": form, "ok": ok})

    def format_record(self, model: str, form: str) -> tuple[int, int]:
        """Count, over a model's last 20 replies in a format, those that could be applied, and all of them."""
        seen = self._formats.get((model, form), [])[-20:]
        return sum(seen), len(seen)

    def usd_per_call(self, model: str) -> float | None:
        """Average the dollars of a model's calls; None before the first with a known price."""
        paid = self._by_model.get(model)
        return sum(paid) / len(paid) if paid else None

    def _record(self, event: Mapping[str, Any]) -> None:
        self._take(event)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"time": round(time.time(), 3), **event}) + "\n"
            with self._path.open("a+b") as file:
                # A line that a crash cut off ends here, or it would take this one with it.
                if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                    line = f"\n{line}"
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "started":
            self._open[event["call"]] = _Call(event["model"], event["ceiling"])
        elif event["event"] == "ended":
            call = self._open.pop(event["call"], None)
            usd = event.get("usd")
            if call is not None and event.get("doubtful"):
                self._doubtful += call.ceiling
            if usd is None and "usd" in event:
                self.bill = replace(self.bill, unpriced=self.bill.unpriced + 1)
            if usd is not None:
                self.bill = _added(self.bill, event)
                if call is not None:
                    self._by_model.setdefault(call.model, []).append(usd)
        elif event["event"] == "edit":
            self._formats.setdefault((event["model"], event["format"]), []).append(bool(event["ok"]))


def _added(bill: Bill, event: Mapping[str, Any]) -> Bill:
    uncached = event.get("usd_uncached")
    return replace(
        bill,
        calls=bill.calls + 1,
        usd=bill.usd + event["usd"],
        usd_uncached=None if bill.usd_uncached is None or uncached is None else bill.usd_uncached + uncached,
        tokens_in=bill.tokens_in + int(event.get("tokens_in") or 0),
        tokens_cached=bill.tokens_cached + int(event.get("tokens_cached") or 0),
        tokens_out=bill.tokens_out + int(event.get("tokens_out") or 0),
    )


def _events(path: Path | None) -> list[dict[str, Any]]:
    """Read every whole event of the file; skip a line that a crash cut off."""
    if path is None or not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            found.append(event)
    return found
