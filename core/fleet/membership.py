"""A run's part in the sharing of a fleet's places: it says what it uses, and hears what it may use."""

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
from autoresearch.core.fleet.cluster import Share
from autoresearch.core.fleet.fair_scheduler import Answer, Key, Word

SYNC_SECONDS = 0.5
"""Between two words where nothing happens here; what happens is told at once."""
START_SECONDS = 90.0
"""For the first answer: the sharing may have to be started."""
GIVE_SECONDS = 1.0
"""How long a trial that has ended waits to hear what comes free by it: a result must not wait for a lost cluster."""
LEAVE_SECONDS = 10.0
"""Since the last answer, then leave is not taken: nobody is there to hear it."""
WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Member:
    """A run, as others on the fleet see it."""

    tag: str = "run"
    folder: Path | None = None
    """Where it is recorded; None for what is no run."""
    priority: float = 1.0
    host: str = field(default_factory=socket.gethostname)
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def name(self) -> str:
        """The same when the loop is started again."""
        return self.session if self.folder is None else f"{self.host}:{self.folder}"


class Membership:
    """Places that this run uses, and those that it may use. One thread speaks; every method may be called from any."""

    def __init__(
        self,
        share: Share,
        member: Member,
        machine: str,
        fits: Callable[[], Sequence[Key]],
        heard: Callable[[Answer, int], None],
    ) -> None:
        """`fits` are the places that could run its trials now; `heard` is told every answer, and how many it uses.

        Raises `PrerequisiteError` when the sharing cannot be started.
        """
        self.member = member
        self._share, self._machine, self._fits, self._heard = share, machine, fits, heard
        self._changed = threading.Condition()
        self._held: set[Key] = set()
        self._asking: set[Key] = set()
        self._offers: dict[Key, float] = {}
        """Until when each holds at least, in monotonic seconds."""
        self.answer: Answer | None = None
        """The last one."""
        self._begun = self._ended = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self.seen = time.monotonic()
        """When the last answer came."""
        self._begin()
        self._thread = threading.Thread(target=self._speak, name="sharing", daemon=True)
        self._thread.start()

    def capacity(self) -> int:
        """Places that are used and those that may be."""
        fits, now = set(self._fits()), time.monotonic()
        with self._changed:
            free = sum(now < until and key in fits for key, until in self._offers.items())
            return len(self._held) + len(self._asking) + free

    def take(self, gone: Callable[[], bool]) -> Key | None:
        """A place for a trial; None when there is none now, or the sharing is `gone`."""
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

    def give(self, key: Key) -> None:
        """A trial has ended. Returns when the next ones are known, or after a moment."""
        with self._changed:
            self._held.discard(key)
            begun = self._begun
            self._wake.set()
            self._changed.wait_for(lambda: self._ended > begun or self._closing.is_set(), GIVE_SECONDS)

    def tell(self) -> None:
        """What fits has changed."""
        self._wake.set()

    def close(self) -> None:
        """Leave the fleet; nothing runs any more."""
        self._closing.set()
        self._wake.set()
        well = time.monotonic() - self.seen < LEAVE_SECONDS
        self._thread.join(LEAVE_SECONDS if well else GIVE_SECONDS)  # nobody may speak when the engine is shut down
        if well:
            with suppress(Exception):  # it will be taken for dead, and what it held is free then
                self._share.leave(self.member.name, self.member.session)

    def _begin(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._round()
            except Exception as error:
                if time.monotonic() > deadline:
                    words = " ".join(str(error).split())[:300]
                    message = f"the fleet's places cannot be shared: {type(error).__name__}: {words}"
                    raise PrerequisiteError(message, fix="look at the cluster's head: `ray status`") from error
                time.sleep(WAIT_SECONDS)

    def _speak(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(SYNC_SECONDS)
            self._wake.clear()
            with suppress(Exception):  # a cluster that does not answer now is asked again, until it counts as gone
                self._round()

    def _round(self) -> None:
        """Say how things are here, and take in the answer."""
        fits = self._fits()
        with self._changed:
            self._begun += 1
            number, held, asked, before = self._begun, set(self._held), set(self._asking), self.answer
        sent = time.monotonic()
        answer = self._share.sync(
            Word(
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
            # Only what is still wanted: a place that nobody waits for any more would never be given back.
            self._held |= asked & self._asking & set(answer["held"])
            self._asking -= asked
            mine = self._held | self._asking
            self._offers = {key: sent + seconds for key, seconds in answer["offered"] if key not in mine}
            self.answer, self._ended, self.seen = answer, number, time.monotonic()
            used = len(self._held)
            self._changed.notify_all()
        self._heard(answer, used)
