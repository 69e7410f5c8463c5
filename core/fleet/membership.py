"""A run's membership of a fleet: it checks in with the scheduler, and keeps track of the slots that it may use."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.fleet.cluster import SchedulerClient
from autoresearch.core.fleet.fair_scheduler import Answer, CheckIn, SlotKey

CHECK_IN_SECONDS = 0.5
"""Seconds between two check-ins while nothing happens; a change is reported at once."""
START_SECONDS = 90.0
"""Seconds to wait for the first answer: the scheduler may have to be started."""
RELEASE_SECONDS = 1.0
"""Longest time in seconds that a trial that has ended waits for the next offers: its result must not wait for a lost
cluster."""
LEAVE_SECONDS = 10.0
"""Seconds since the last answer after which a run ends without leaving: nobody is there to hear it."""
WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Member:
    """A run, as the other runs on the fleet see it."""

    tag: str = "run"
    folder: Path | None = None
    """Folder where it is recorded; None for something that is not a recorded run, such as a benchmark."""
    priority: float = 1.0
    host: str = field(default_factory=socket.gethostname)
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def name(self) -> str:
        """Name on the fleet; the same after its loop is started again."""
        return self.session if self.folder is None else f"{self.host}:{self.folder}"


class Membership:
    """The slots that this run uses, and those that it may use.

    A thread of its own speaks to the scheduler; every method may be called from any thread.
    """

    def __init__(
        self,
        scheduler: SchedulerClient,
        member: Member,
        machine: str,
        fits: Callable[[], Sequence[SlotKey]],
        on_answer: Callable[[Answer, int], None],
    ) -> None:
        """Check in for the first time.

        `fits` returns the slots that could run this run's trials now. `on_answer` is called with every answer and the
        number of slots in use. Raises `PrerequisiteError` when the scheduler cannot be started.
        """
        self.member = member
        self._scheduler, self._machine, self._fits, self._on_answer = scheduler, machine, fits, on_answer
        self._changed = threading.Condition()
        # A slot goes from `_offers` to `_asking` (acquire), to `_held` (the scheduler's answer), and out (release).
        self._offers: dict[SlotKey, float] = {}
        """Offers, each with the monotonic time until which it holds at least."""
        self._asking: set[SlotKey] = set()
        self._held: set[SlotKey] = set()
        self.answer: Answer | None = None
        """The last answer."""
        self.seen = time.monotonic()
        """Monotonic time of the last answer."""
        self._begun = self._ended = 0
        """Number of the last check-in that was begun, and of the last that was answered."""
        self._wake, self._closing = threading.Event(), threading.Event()
        self._first_check_in()
        self._thread = threading.Thread(target=self._keep_checking_in, name="check-in", daemon=True)
        self._thread.start()

    def capacity(self) -> int:
        """Count the slots that are in use and those that may be used."""
        fits, now = set(self._fits()), time.monotonic()
        with self._changed:
            free = sum(now < until and key in fits for key, until in self._offers.items())
            return len(self._held) + len(self._asking) + free

    def acquire(self, gone: Callable[[], bool]) -> SlotKey | None:
        """Take a slot for a trial; None when there is none now, or when `gone` says that the cluster is lost."""
        fits = self._fits()
        with self._changed:
            key = next((key for key in fits if key in self._offers), None)
            if key is None:
                self._changed.wait(WAIT_SECONDS)
                return None
            del self._offers[key]
            self._asking.add(key)
            self._wake.set()
            while key in self._asking and not gone():
                self._changed.wait(WAIT_SECONDS)
            self._asking.discard(key)
            return key if key in self._held else None

    def release(self, key: SlotKey) -> None:
        """Give back the slot of a trial that has ended.

        Returns when a check-in that began after it has been answered, so that the caller already sees the next offers,
        or after a moment without an answer.
        """
        with self._changed:
            self._held.discard(key)
            begun = self._begun
            self._wake.set()
            self._changed.wait_for(lambda: self._ended > begun or self._closing.is_set(), RELEASE_SECONDS)

    def wake(self) -> None:
        """Check in now: the slots that fit have changed."""
        self._wake.set()

    def close(self) -> None:
        """Leave the fleet. No trial may be running."""
        self._closing.set()
        self._wake.set()
        answering = time.monotonic() - self.seen < LEAVE_SECONDS
        self._thread.join(LEAVE_SECONDS if answering else RELEASE_SECONDS)  # no call may be open when the engine ends
        if answering:
            with suppress(Exception):  # it will be taken for dead, and then its slots are free
                self._scheduler.leave(self.member.name, self.member.session)

    def _first_check_in(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._check_in()
            except Exception as error:
                if time.monotonic() > deadline:
                    reason = " ".join(str(error).split())[:300]
                    message = f"the fleet's scheduler does not answer: {type(error).__name__}: {reason}"
                    raise PrerequisiteError(message, fix="look at the cluster's head: `ray status`") from error
                time.sleep(WAIT_SECONDS)

    def _keep_checking_in(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(CHECK_IN_SECONDS)
            self._wake.clear()
            with suppress(Exception):  # asked again until the executor, by `seen`, counts the cluster as gone
                self._check_in()

    def _check_in(self) -> None:
        """Report this run's state, and take in the answer."""
        fits = self._fits()
        with self._changed:
            self._begun += 1
            number, held, asked, before = self._begun, set(self._held), set(self._asking), self.answer
        sent = time.monotonic()
        answer = self._scheduler.check_in(
            CheckIn(
                run=self.member.name,
                session=self.member.session,
                tag=self.member.tag,
                host=self.member.host,
                folder=str(self.member.folder or ""),
                priority=self.member.priority,
                machine=self._machine,
                fits=list(fits),
                held=sorted(held),
                asked=sorted(asked),
                paused=before["paused"] if before else False,
                drained=before["drained"] if before else [],
            )
        )
        with self._changed:
            # Only slots that a thread still waits for: any other would never be given back.
            self._held |= asked & self._asking & set(answer["held"])
            self._asking -= asked
            mine = self._held | self._asking
            # Counted from the sending: the scheduler counted from the check-in's arrival, which was later.
            self._offers = {key: sent + seconds for key, seconds in answer["offered"] if key not in mine}
            self.answer, self._ended, self.seen = answer, number, time.monotonic()
            used = len(self._held)
            self._changed.notify_all()
        self._on_answer(answer, used)
