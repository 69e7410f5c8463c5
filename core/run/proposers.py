"""The researcher at work: in this thread where it is quick, in threads of its own where it thinks ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import Cost, History, Proposal, Researcher
from autoresearch.core.run.stopping import Stop

CANCEL_SECONDS = 2.0


@dataclass(frozen=True)
class Thought:
    """What came of asking a researcher once."""

    history: History
    outcome: Proposal | str
    """A proposal, or in words why there is none."""
    cost: Cost
    """Of calls that brought no proposal; a proposal has its own."""


class Thinkers:
    """Asks a researcher, and keeps the answers until they are taken. Only `propose` runs in other threads."""

    def __init__(self, researcher: Researcher, stop: Stop, news: Callable[[], None]) -> None:
        """`news` is called from any thread when there is an answer."""
        self.researcher = researcher
        self.ahead = bool(getattr(researcher, "thinks_ahead", False))
        self.busy = 0
        """Proposals that were asked for and not taken yet."""
        self._working = 0
        self._stop, self._news = stop, news
        self._lock = threading.Lock()
        self._thoughts: list[Thought] = []

    def ask(self, history: History) -> None:
        """Have a proposal made, now or in a thread. Raises `KeyboardInterrupt` when a person wants to stop at once."""
        self.busy += 1
        if not self.ahead:
            with self._stop.proposing():
                self._thoughts.append(think(self.researcher, history))
            return
        with self._lock:
            self._working += 1
        # A daemon: where a person stops the loop while a model is waited for, nobody waits for the thread.
        threading.Thread(target=self._work, args=(history,), name="researcher", daemon=True).start()

    def take(self) -> list[Thought]:
        """The answers since the last call, in the order in which they came."""
        with self._lock:
            taken, self._thoughts = self._thoughts, []
        self.busy -= len(taken)
        return taken

    def cancel(self) -> None:
        """Nobody waits for what is in the making any more; a researcher that can end it gets a moment to do so."""
        stop = getattr(self.researcher, "cancel", None)
        if not self._working or stop is None:
            return
        stop()
        deadline = time.monotonic() + CANCEL_SECONDS
        while self._working and time.monotonic() < deadline:
            time.sleep(0.02)

    def _work(self, history: History) -> None:
        thought = think(self.researcher, history)
        with self._lock:
            self._working -= 1
            self._thoughts.append(thought)
        self._news()


def think(researcher: Researcher, history: History) -> Thought:
    """Ask once; a fault in a researcher must not end a night's work at the first odd source that it meets."""
    try:
        proposal = researcher.propose(history)
    except ProposalError as error:
        # Calls to a model may have been paid for all the same.
        return Thought(history, error.message, getattr(error, "cost", Cost()))
    except Exception as error:
        return Thought(history, f"{type(error).__name__}: {' '.join(str(error).split())}", Cost())
    named = proposal if proposal.researcher else replace(proposal, researcher=researcher.name)
    return Thought(history, named, Cost())
