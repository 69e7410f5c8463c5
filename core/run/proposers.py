"""Calls to the researcher: in the loop's thread where it is quick, in threads of their own where it is slow."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from autoresearch.core.errors import BrokenResearcherError, ProposalError, UnusableProposalError
from autoresearch.core.proposal import Cost, History, Proposal, Researcher, paid_for
from autoresearch.core.run.stopping import Stop

REMEMBERED = 10
"""Number of latest answers whose times count."""
MOST_AHEAD = 3
"""Largest number of proposals for one device that wait or are being made."""
CANCEL_SECONDS = 2.0
"""Seconds that a researcher gets to end its work when the loop ends."""

Kind = Literal["failed", "broken", "unusable"]


@dataclass(frozen=True)
class ResearcherAnswer:
    """Result of asking a researcher once."""

    history: History
    """The history that the researcher saw."""
    proposal: Proposal | None
    refusal: str = ""
    """Why there is no proposal; empty where there is one."""
    cost: Cost = field(default_factory=Cost)
    """Cost of calls that brought no proposal; a proposal carries its own."""
    kind: Kind = "failed"
    """Why there is no proposal: the program does not work, its answer cannot be used, or neither is known."""
    record: str = ""
    """Path of what its program has said."""


class Proposers:
    """Asks a researcher, and keeps its answers until they are taken. Only `propose` runs in other threads."""

    def __init__(self, researcher: Researcher, stop: Stop, notify: Callable[[], None]) -> None:
        """`notify` is called from any thread when there is an answer."""
        self.researcher = researcher
        self.ahead = researcher.thinks_ahead
        """True where proposals are made in threads, while trials run."""
        self.busy = 0
        """Proposals asked for and not taken yet."""
        self._working = 0
        self._stop, self._notify = stop, notify
        self._lock = threading.Lock()
        self._answers: list[ResearcherAnswer] = []
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._missing = 0
        """Proposals of batches that came out smaller than they were asked for."""

    def ahead_by(self, trial_seconds: float) -> int:
        """Return the number of proposals to have ready or in the making for each device.

        One suffices while the slowest of the last answers came within half a trial; `trial_seconds` is a trial's.
        """
        with self._lock:
            slowest = max(self._seconds, default=0.0)
        return min(MOST_AHEAD, 1 + math.ceil(max(0.0, slowest / max(trial_seconds, 1e-9) - 0.5)))

    def at_once(self, trial_seconds: float) -> int:
        """Return the number of proposals to have in the making at once so that one device is never idle."""
        with self._lock:
            typical = statistics.median(self._seconds) if self._seconds else 0.0
        return max(1, min(MOST_AHEAD, math.ceil(typical / max(trial_seconds, 1e-9))))

    def batch_size(self, history: History, wanted: int) -> int:
        """Return how many of `wanted` proposals the researcher should be asked for in one call; 1 for a quick one."""
        if not self.ahead or wanted < 2:
            return 1
        try:
            return max(1, min(wanted, self.researcher.batch_size(history, wanted)))
        except Exception:  # as in `ask_batch`: one odd source must not end a night's work
            return 1

    def ask(self, history: History, count: int = 1) -> None:
        """Have proposals made, now or in a thread; more than one only by a researcher that thinks ahead.

        Raises `KeyboardInterrupt` when a person wants to stop at once.
        """
        self.busy += count
        if not self.ahead:
            with self._stop.proposing():
                self._answers.append(ask_once(self.researcher, history))
            return
        with self._lock:
            self._working += 1
        # A daemon thread, so that a person who stops the loop need not wait for a model's answer.
        threading.Thread(target=self._work, args=(history, count), name="researcher", daemon=True).start()

    def take(self) -> list[ResearcherAnswer]:
        """Return the answers since the last call, in the order in which they came."""
        with self._lock:
            taken, self._answers = self._answers, []
            missing, self._missing = self._missing, 0
        # Only here and not when the thread ends: an answer that nobody has looked at is still a proposal on its way.
        self.busy -= len(taken) + missing
        return taken

    def cancel(self) -> None:
        """Tell the researcher that its answers are no longer needed, and give it `CANCEL_SECONDS` to end its work."""
        if not self._working or not self.researcher.cancel():
            return
        deadline = time.monotonic() + CANCEL_SECONDS
        while self._working and time.monotonic() < deadline:
            time.sleep(0.02)

    def _work(self, history: History, count: int) -> None:
        started = time.monotonic()
        try:
            answers = ask_batch(self.researcher, history, count)
        except BaseException as error:
            # A panic of a library in Rust is no Exception. A thread that ends without an answer is waited for for ever.
            answers = [_unforeseen(history, error)]
        with self._lock:
            if answers[0].proposal is not None:  # a failure with its retries tells nothing of the pace
                self._seconds.append(time.monotonic() - started)
            self._working -= 1
            self._answers += answers
            self._missing += count - len(answers)
        self._notify()


def ask_once(researcher: Researcher, history: History) -> ResearcherAnswer:
    """Ask for one proposal. Every failure becomes an answer: one odd source must not end a night's work."""
    return ask_batch(researcher, history, 1)[0]


def ask_batch(researcher: Researcher, history: History, count: int) -> list[ResearcherAnswer]:
    """Ask for up to `count` proposals at once; return one answer or more, and no more than `count`."""
    try:
        made = [researcher.propose(history)] if count == 1 else list(researcher.propose_batch(history, count))[:count]
    except ProposalError as error:
        return [ResearcherAnswer(history, None, error.message, paid_for(error), _kind_of(error), error.record)]
    except Exception as error:
        return [_unforeseen(history, error)]
    named = [one if one.researcher else replace(one, researcher=researcher.name) for one in made]
    answers = [ResearcherAnswer(history, one) for one in named]
    return answers or [ResearcherAnswer(history, None, f"{researcher.name} made no proposal.")]


def _unforeseen(history: History, error: BaseException) -> ResearcherAnswer:
    return ResearcherAnswer(history, None, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _kind_of(error: ProposalError) -> Kind:
    if isinstance(error, BrokenResearcherError):
        return "broken"
    return "unusable" if isinstance(error, UnusableProposalError) else "failed"
