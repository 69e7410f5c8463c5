"""The places of a fleet, shared among the runs on it: start-time fair queueing, without taking anything away.

A run's virtual time grows by its device-seconds over its priority, and a free place is offered to the run whose time is
lowest (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996). A run that is new, or comes back, begins
at the lowest time of the others: nobody saves up while away. What runs is never interrupted.

Imports the standard library alone, and speaks in plain dicts: an engine may send it to a machine that has no ar.

What runs on one fleet and the sharing of its places (see sharing.py) tell each other: plain dicts and tuples.

Imports the standard library alone, for the same reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypedDict

Key = tuple[str, str, int]
"""A place: the node, "gpu" or "cpu", and which of them."""


class Word(TypedDict):
    """All that a run says of itself, every time: nothing is lost with a message."""

    run: str
    """Its name on the fleet; the same when its loop is started again."""
    session: str
    """One invocation of its loop."""
    tag: str
    host: str
    folder: str
    priority: float
    machine: str
    fits: list[Key]
    """Places that could run its trials."""
    held: list[Key]
    """Where its trials run. What it held before and is not here is given back."""
    asked: list[Key]
    """Offers that it wants to use."""
    paused: bool
    """As it heard last; believed by a sharing that does not know the run."""
    drained: list[str]
    """Likewise."""


class Neighbour(TypedDict):
    """Another run, in short."""

    tag: str
    host: str
    used: int


class Answer(TypedDict):
    """What a run is told."""

    held: list[Key]
    """Of what it holds and asked for, what it has."""
    offered: list[tuple[Key, float]]
    """Places it may use, and for how many seconds from its asking this holds at least."""
    paused: bool
    drained: list[str]
    share: float
    """Of the device-seconds of all runs that are there, 0..1."""
    others: list[Neighbour]


class RunReport(TypedDict):
    """A run, for people."""

    run: str
    tag: str
    host: str
    folder: str
    priority: float
    machine: str
    places: list[Key]
    used: list[Key]
    device_seconds: float
    share: float
    paused: bool


class Report(TypedDict):
    """Everything, for people."""

    runs: list[RunReport]
    drained: list[str]


class Places:
    """Some places, and which others cannot be used beside them: a trial on a CPU takes its node, whatever is in it."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: set[Key] = set()
        self._kinds: set[tuple[str, str]] = set()
        for key in keys:
            self.add(key)

    def add(self, key: Key) -> None:
        """One more."""
        self._keys.add(key)
        self._kinds.add(key[:2])

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def conflict(self, key: Key) -> bool:
        """Whether that one is among them, or could not be used together with one of them."""
        node, kind, _ = key
        return key in self._keys or (node, "cpu" if kind == "gpu" else "gpu") in self._kinds


def conflict(a: Key, b: Key) -> bool:
    """Whether two places cannot be used at once."""
    return Places([a]).conflict(b)


SILENT_SECONDS = 30.0
"""Without a word from a run, then it has died, and what it held is free."""
OFFER_SECONDS = 5.0
"""How long a run may leave an offer unused while somebody else could use the place."""
PROMISE_SECONDS = 2.0
"""How long an offer holds at least, also one that was unused for long when somebody comes who could use the place."""
GRACE_SECONDS = 2.0
"""How long an offer that is over is honoured: the run may have decided to use it before it heard."""
PASS_SECONDS, PASS_AT_MOST_SECONDS = 10.0, 120.0
"""How long others go first where a run has left an offer unused, for its language model still thinks; twice as long
every time in a row."""
STARVED_SECONDS = 60.0
"""Without any place, then a node is kept free for the run: one that needs a whole node may never find it empty."""
QUIET_SECONDS = 3.0
"""In which a sharing that replaces a lost one only listens to what is held already."""
TYPICAL_SECONDS = 60.0
"""Length of a trial before any has ended here."""
MEMORY = 0.8
"""Weight of what was typical so far against the trial that ends now."""


@dataclass
class _Run:
    word: Word
    heard: float
    joined: int
    virtual: float
    used: float = 0.0
    """Device-seconds."""
    paused: bool = False
    passed_until: float = float("-inf")
    pass_seconds: float = PASS_SECONDS
    empty_since: float = 0.0
    """When it had a place, or an offer, for the last time."""
    fits: Places = field(default_factory=Places)


@dataclass
class _Lease:
    run: str
    since: float


@dataclass
class _Offer:
    run: str
    since: float
    until: float | None = None
    """None while nobody else could use the place."""
    withdrawn: bool = False


@dataclass
class Sharing:
    """Who may use which place. Every call may be repeated: it says what shall be, not what shall change."""

    clock: Callable[[], float] = time.monotonic
    again: bool = False
    """It replaces one that was lost."""
    _runs: dict[str, _Run] = field(default_factory=dict)
    _leases: dict[Key, _Lease] = field(default_factory=dict)
    _offers: dict[Key, _Offer] = field(default_factory=dict)
    _drained: set[str] = field(default_factory=set)
    _virtual: float = 0.0
    """The lowest virtual time of those who take part; never falls."""
    _typical: float = TYPICAL_SECONDS
    _joined: int = 0
    _gpus: Counter[str] = field(default_factory=Counter)
    """Of every node, as far as there is a run for them."""

    def __post_init__(self) -> None:
        self._at = self.clock()
        self._quiet_until = self._at + (QUIET_SECONDS if self.again else 0.0)

    def sync(self, word: Word) -> Answer:
        """Take in what a run says of itself; tell it what it has and may have."""
        now = self._advance()
        run, name = self._join(word, now), word["run"]
        mine = {*word["held"], *word["asked"]}
        self._release((key for key, lease in self._leases.items() if lease.run == name and key not in mine), now)
        for key in word["held"]:
            # After this sharing was made anew, or took the run for dead: its trial does run there.
            if key not in self._leases and not self._leased(key):
                self._lease(key, name, now)
        for key in word["asked"]:
            if self._may_use(run, key):
                self._lease(key, name, now)
                run.pass_seconds = PASS_SECONDS
        self._share_out(now)
        return self._answer(run, now)

    def leave(self, name: str, session: str) -> None:
        """A loop has ended; what it held is free."""
        now = self._advance()
        if name in self._runs and self._runs[name].word["session"] == session:
            self._forget(name, now)
        self._share_out(now)

    def pause(self, name: str, paused: bool) -> bool:
        """Whether the run may start trials; those that run go on. Returns whether there is such a run."""
        now = self._advance()
        if name in self._runs:
            self._runs[name].paused = paused
        self._share_out(now)
        return name in self._runs

    def drain(self, node: str, drained: bool) -> None:
        """Whether a node is offered to nobody; what runs there goes on."""
        now = self._advance()
        (self._drained.add if drained else self._drained.discard)(node)
        self._share_out(now)

    def report(self) -> Report:
        """How things stand."""
        self._share_out(self._advance())
        runs = [
            RunReport(
                run=name,
                tag=run.word["tag"],
                host=run.word["host"],
                folder=run.word["folder"],
                priority=run.word["priority"],
                machine=run.word["machine"],
                places=sorted(run.fits),
                used=sorted(self._held_by(name)),
                device_seconds=run.used,
                share=self._share_of(run),
                paused=run.paused,
            )
            for name, run in self._runs.items()
        ]
        return Report(runs=runs, drained=sorted(self._drained))

    def _advance(self) -> float:
        """Charge what is held, and forget runs that are silent. Returns the time."""
        now = self.clock()
        passed, self._at = now - self._at, now
        for key, lease in self._leases.items():
            run = self._runs[lease.run]
            run.used += passed * self._devices(key)
            run.virtual += passed * self._devices(key) / run.word["priority"]
        for name in [name for name, run in self._runs.items() if now - run.heard > SILENT_SECONDS]:
            self._forget(name, now)
        times = [run.virtual for run in self._runs.values() if self._takes_part(run)]
        self._virtual = max(self._virtual, min(times, default=self._virtual))
        for run in self._runs.values():
            if not self._takes_part(run):
                run.virtual = max(run.virtual, self._virtual)
        return now

    def _takes_part(self, run: _Run) -> bool:
        return not run.paused and any(key[0] not in self._drained for key in run.fits)

    def _join(self, word: Word, now: float) -> _Run:
        run = self._runs.get(word["run"])
        if run is None or run.word["session"] != word["session"]:
            if run is not None:
                self._forget(word["run"], now)
            self._joined += 1
            run = _Run(word, now, self._joined, self._virtual, paused=word["paused"], empty_since=now)
            self._runs[word["run"]] = run
            if now < self._quiet_until:
                self._drained |= set(word["drained"])
        run.word, run.heard = word, now
        if set(run.fits) != set(word["fits"]):
            run.fits = Places(word["fits"])
            every = set[Key]().union(*(other.fits for other in self._runs.values()))
            self._gpus = Counter(node for node, kind, _ in every if kind == "gpu")
        return run

    def _forget(self, name: str, now: float) -> None:
        self._release((key for key, lease in self._leases.items() if lease.run == name), now)
        self._offers = {key: offer for key, offer in self._offers.items() if offer.run != name}
        del self._runs[name]

    def _release(self, keys: Iterable[Key], now: float) -> None:
        for key in list(keys):
            took = now - self._leases.pop(key).since
            self._typical = MEMORY * self._typical + (1 - MEMORY) * took

    def _lease(self, key: Key, name: str, now: float) -> None:
        self._leases.setdefault(key, _Lease(name, now))
        self._offers = {other: offer for other, offer in self._offers.items() if not conflict(other, key)}

    def _held_by(self, name: str) -> list[Key]:
        return [key for key, lease in self._leases.items() if lease.run == name]

    def _leased(self, key: Key) -> bool:
        return key in self._leases or any(conflict(key, other) for other in self._leases)

    def _devices(self, key: Key) -> int:
        """How many a trial on that place takes from others."""
        return 1 if key[1] == "gpu" else max(1, self._gpus[key[0]])

    def _may_use(self, run: _Run, key: Key) -> bool:
        name = run.word["run"]
        if key in self._leases:
            return self._leases[key].run == name  # asked once more: the answer was lost
        if self._leased(key):
            return False
        if key in self._offers and self._offers[key].run == name:
            return True
        reserved = any(conflict(key, other) and offer.run != name for other, offer in self._offers.items())
        return not reserved and not run.paused and key[0] not in self._drained and key in run.fits

    def _share_out(self, now: float) -> None:
        """Take back offers that are over, and offer what is free."""
        for key, offer in list(self._offers.items()):
            run = self._runs[offer.run]
            if key not in run.fits:
                del self._offers[key]
            elif offer.until is not None and now >= offer.until + GRACE_SECONDS:
                del self._offers[key]
                if not offer.withdrawn:
                    run.passed_until = now + run.pass_seconds
                    others = [one.virtual for one in self._runs.values() if one is not run and self._takes_part(one)]
                    run.virtual = max(run.virtual, min(others, default=run.virtual))
                    run.pass_seconds = min(2 * run.pass_seconds, PASS_AT_MOST_SECONDS)
            elif (run.paused or key[0] in self._drained) and not offer.withdrawn:
                offer.until, offer.withdrawn = now, True
        if now < self._quiet_until:
            return
        taken = Places()
        has: Counter[str] = Counter()
        owners: list[tuple[Key, _Lease | _Offer]] = [*self._leases.items(), *self._offers.items()]
        for key, owner in owners:
            taken.add(key)
            has[owner.run] += self._devices(key)
        for name, run in self._runs.items():
            if has[name] or not self._takes_part(run):
                run.empty_since = now
        active = [run for run in self._runs.values() if self._takes_part(run)]
        for patient in (False, True):
            self._offer([run for run in active if (now < run.passed_until) == patient], taken, has, now)
        self._start_clocks(active, now)

    def _offer(self, waiting: list[_Run], taken: Places, has: Counter[str], now: float) -> None:
        """Offer free places to those who wait, one after the other, the lowest virtual time first."""

        def free(run: _Run) -> Iterator[Key]:
            for key in run.word["fits"]:
                if key[0] not in self._drained and not taken.conflict(key):
                    yield key

        def turn(run: _Run) -> tuple[float, int]:
            # What it has counts as if a trial were over there, or the first in the row would get all that is free.
            return run.virtual + has[run.word["run"]] * self._typical / run.word["priority"], run.joined

        places = {run.word["run"]: free(run) for run in waiting}
        while waiting:
            run = min(waiting, key=turn)
            name = run.word["run"]
            key = next(places[name], None)
            if key is not None:
                self._offers[key] = _Offer(name, now)
                has[name] += self._devices(key)
                if run.pass_seconds > PASS_SECONDS:
                    waiting.remove(run)  # it has left offers unused of late: one is enough to see whether it is ready
            else:
                waiting.remove(run)
                if now - run.empty_since <= STARVED_SECONDS:
                    continue
                # As nearly free as any: nobody else gets what would be in its way.
                usable = (key for key in run.word["fits"] if key[0] not in self._drained)
                key = min(usable, key=lambda key: sum(conflict(key, other) for other in self._leases))
            taken.add(key)

    def _start_clocks(self, active: list[_Run], now: float) -> None:
        """An offer lasts as long as nobody else could use the place."""
        idle = {offer.run for offer in self._offers.values()}
        rivals = [run for run in active if now >= run.passed_until and run.word["run"] not in idle]
        for key, offer in self._offers.items():
            if offer.withdrawn:
                continue
            if not any(run.fits.conflict(key) for run in rivals):
                offer.until = None
            elif offer.until is None:
                offer.until = max(offer.since + OFFER_SECONDS, now + PROMISE_SECONDS)

    def _share_of(self, run: _Run) -> float:
        whole = sum(other.used for other in self._runs.values())
        return run.used / whole if whole else 0.0

    def _answer(self, run: _Run, now: float) -> Answer:
        name = run.word["run"]
        offered = []
        for key, offer in self._offers.items():
            left = PROMISE_SECONDS if offer.until is None else offer.until - now
            if offer.run == name and left > 0:
                offered.append((key, left))
        others = [
            Neighbour(tag=other.word["tag"], host=other.word["host"], used=len(self._held_by(other.word["run"])))
            for other in self._runs.values()
            if other is not run
        ]
        return Answer(
            held=self._held_by(name),
            offered=offered,
            paused=run.paused,
            drained=sorted(self._drained),
            share=self._share_of(run),
            others=others,
        )
