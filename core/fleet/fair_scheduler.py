"""The fair scheduler of a fleet: it divides the slots among the runs that share one cluster.

It is start-time fair queueing without preemption (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM
1996). A run's virtual time grows by the device-seconds that it uses, divided by its priority, and a free slot is
offered to the run with the lowest virtual time. A run that is new, or comes back, begins at the lowest virtual time of
the others, so nobody saves up credit while away. A running trial is never interrupted.

Runs and scheduler exchange check-ins and answers, which are plain dicts and tuples. This module imports the standard
library alone: an engine may send it to a machine on which `ar` is not installed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypedDict

SILENT_SECONDS = 30.0
"""Seconds without a check-in after which a run counts as dead and its slots are free."""
OFFER_SECONDS = 5.0
"""Seconds that a run may leave an offer unused while another run could use the slot."""
PROMISE_SECONDS = 2.0
"""Shortest validity of an offer in seconds, also of one that was long unused when a rival for the slot appears."""
GRACE_SECONDS = 2.0
"""Seconds for which an expired offer is still honoured: the run may have decided to use it before it heard."""
PASS_SECONDS, PASS_AT_MOST_SECONDS = 10.0, 120.0
"""Seconds for which other runs go first after a run left an offer unused, because its language model is still thinking.
The time doubles with every offer left unused in a row, up to the second number."""
STARVED_SECONDS = 60.0
"""Seconds without any slot after which a node is kept free for a run: one that needs a whole node may otherwise never
find an empty one."""
QUIET_SECONDS = 3.0
"""Seconds for which a scheduler that replaces a lost one only listens, to learn which slots are in use."""
TYPICAL_SECONDS = 60.0
"""Assumed length of a trial in seconds before the first has ended."""
MEMORY = 0.8
"""Weight of the typical length so far against the length of the trial that ends now, 0..1."""

SlotKey = tuple[str, str, int]
"""A slot: the node, "gpu" or "cpu", and its number on that node."""


class CheckIn(TypedDict):
    """A run's message to the scheduler. Each one holds the run's whole state, so a lost message loses nothing."""

    run: str
    """Name of the run on the fleet; the same after its loop is started again."""
    session: str
    """Identifier of one invocation of the loop."""
    tag: str
    host: str
    folder: str
    priority: float
    machine: str
    fits: list[SlotKey]
    """Slots that could run its trials."""
    held: list[SlotKey]
    """Slots on which its trials run. A slot that it held before and does not list here is given back."""
    asked: list[SlotKey]
    """Offers that it wants to use."""
    paused: bool
    """True when the last answer paused it; believed by a scheduler that does not know the run yet."""
    drained: list[str]
    """Nodes that were drained by the last answer; believed likewise."""


class OtherRun(TypedDict):
    """Another run on the fleet, in short."""

    tag: str
    host: str
    used: int


class Answer(TypedDict):
    """The scheduler's answer to a check-in."""

    held: list[SlotKey]
    """Slots that the run has, out of those it holds and asked for."""
    offered: list[tuple[SlotKey, float]]
    """Slots that it may use, each with the seconds for which the offer holds at least, counted from the check-in."""
    paused: bool
    drained: list[str]
    share: float
    """Its share of the device-seconds of all runs that are present, 0..1."""
    others: list[OtherRun]


class RunUsage(TypedDict):
    """The use of the fleet by one run, for `ar fleet`."""

    run: str
    tag: str
    host: str
    folder: str
    priority: float
    machine: str
    places: list[SlotKey]
    """Slots that could run its trials."""
    used: list[SlotKey]
    device_seconds: float
    share: float
    paused: bool


class FleetUsage(TypedDict):
    """The use of the fleet by all runs, for `ar fleet`."""

    runs: list[RunUsage]
    drained: list[str]


class SlotSet:
    """A set of slots that can tell which other slots are unusable beside them.

    The only rule: a trial on a node's CPU takes the whole node, its GPUs included.
    """

    def __init__(self, keys: Iterable[SlotKey] = ()) -> None:
        self._keys: set[SlotKey] = set()
        self._kinds: set[tuple[str, str]] = set()
        for key in keys:
            self.add(key)

    def add(self, key: SlotKey) -> None:
        """Add a slot."""
        self._keys.add(key)
        self._kinds.add(key[:2])

    def __contains__(self, key: SlotKey) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[SlotKey]:
        return iter(self._keys)

    def conflicts_with(self, key: SlotKey) -> bool:
        """Return whether a slot is in the set, or cannot be used together with one that is."""
        node, kind, _ = key
        return key in self._keys or (node, "cpu" if kind == "gpu" else "gpu") in self._kinds


def conflict(a: SlotKey, b: SlotKey) -> bool:
    """Return whether two slots are the same or cannot be used at once."""
    return SlotSet([a]).conflicts_with(b)


@dataclass
class _Run:
    check_in: CheckIn
    """The last one."""
    heard: float
    """Time of that check-in."""
    joined: int
    """Rank in the order of arrival, which breaks ties."""
    virtual: float
    """Virtual time: device-seconds over priority, started at the lowest of the others."""
    used: float = 0.0
    """Device-seconds."""
    paused: bool = False
    passed_until: float = float("-inf")
    """Time until which other runs go first."""
    pass_seconds: float = PASS_SECONDS
    empty_since: float = 0.0
    """The last time at which it had a slot or an offer."""
    fits: SlotSet = field(default_factory=SlotSet)


@dataclass
class _Lease:
    run: str
    since: float


@dataclass
class _Offer:
    run: str
    since: float
    until: float | None = None
    """None while no other run could use the slot."""
    withdrawn: bool = False
    """True when it ends because the run was paused or the node drained, which is not the run's fault."""


@dataclass
class FairScheduler:
    """Decides which run may use which slot.

    Every call states what shall be, not what shall change, so a caller that is unsure whether a call arrived can
    repeat it. The scheduler has no thread: time passes in `_advance`, at the start of every call.
    """

    clock: Callable[[], float] = time.monotonic
    replaces_lost: bool = False
    """True when it takes the place of a scheduler that was lost, while trials are running."""
    _runs: dict[str, _Run] = field(default_factory=dict)
    _leases: dict[SlotKey, _Lease] = field(default_factory=dict)
    _offers: dict[SlotKey, _Offer] = field(default_factory=dict)
    _drained: set[str] = field(default_factory=set)
    _virtual: float = 0.0
    """The lowest virtual time of the active runs. Never falls."""
    _typical: float = TYPICAL_SECONDS
    """Typical length of a trial in seconds, a moving average."""
    _joined: int = 0
    _gpus: Counter[str] = field(default_factory=Counter)
    """GPUs of every node, as far as some run can use them."""

    def __post_init__(self) -> None:
        self._at = self.clock()
        self._quiet_until = self._at + (QUIET_SECONDS if self.replaces_lost else 0.0)

    def check_in(self, message: CheckIn) -> Answer:
        """Take in a run's state. Return what it has and what it may use."""
        now = self._advance()
        run, name = self._join(message, now), message["run"]
        # A check-in is the whole truth about a run, so what it no longer names has ended. A slot that it asks for is
        # spared: the answer that granted it may have been lost, and then the run asks again.
        mine = {*message["held"], *message["asked"]}
        self._release((key for key, lease in self._leases.items() if lease.run == name and key not in mine), now)
        for key in message["held"]:
            # This scheduler is new, or took the run for dead: the trial does run there, so the slot is its own.
            if key not in self._leases and not self._leased(key):
                self._lease(key, name, now)
        for key in message["asked"]:
            if self._may_use(run, key):
                self._lease(key, name, now)
                run.pass_seconds = PASS_SECONDS  # it has used an offer, so it is quick again
        self._make_offers(now)
        return self._answer(run, now)

    def leave(self, name: str, session: str) -> None:
        """Forget a run whose loop has ended. A session that was replaced by a newer one is ignored."""
        now = self._advance()
        if name in self._runs and self._runs[name].check_in["session"] == session:
            self._forget(name, now)
        self._make_offers(now)

    def pause(self, name: str, paused: bool) -> bool:
        """Stop or resume a run's starting of trials; running ones go on. Return whether there is such a run."""
        now = self._advance()
        if name in self._runs:
            self._runs[name].paused = paused
        self._make_offers(now)
        return name in self._runs

    def drain(self, node: str, drained: bool) -> None:
        """Stop or resume offering a node's slots; trials that run there go on."""
        now = self._advance()
        (self._drained.add if drained else self._drained.discard)(node)
        self._make_offers(now)

    def report(self) -> FleetUsage:
        """Return what every run has and has used."""
        self._make_offers(self._advance())
        runs = [
            RunUsage(
                run=name,
                tag=run.check_in["tag"],
                host=run.check_in["host"],
                folder=run.check_in["folder"],
                priority=run.check_in["priority"],
                machine=run.check_in["machine"],
                places=sorted(run.fits),
                used=sorted(self._held_by(name)),
                device_seconds=run.used,
                share=self._share_of(run),
                paused=run.paused,
            )
            for name, run in self._runs.items()
        ]
        return FleetUsage(runs=runs, drained=sorted(self._drained))

    def _advance(self) -> float:
        """Charge every run for the slots that it held since the last call, and forget silent runs. Return the time."""
        now = self.clock()
        passed, self._at = now - self._at, now
        for key, lease in self._leases.items():
            run = self._runs[lease.run]
            run.used += passed * self._devices(key)
            # Charged as time passes and not when a trial ends: a run with one very long trial must not look idle
            # meanwhile.
            run.virtual += passed * self._devices(key) / run.check_in["priority"]
        for name in [name for name, run in self._runs.items() if now - run.heard > SILENT_SECONDS]:
            self._forget(name, now)
        times = [run.virtual for run in self._runs.values() if self._is_active(run)]
        # It never falls: a run that comes begins here, and must not come in below the runs that have waited.
        self._virtual = max(self._virtual, min(times, default=self._virtual))
        # An inactive run moves along with the slowest active one. Otherwise it would return with a low virtual time,
        # and take every slot until it had caught up.
        for run in self._runs.values():
            if not self._is_active(run):
                run.virtual = max(run.virtual, self._virtual)
        return now

    def _is_active(self, run: _Run) -> bool:
        return not run.paused and any(key[0] not in self._drained for key in run.fits)

    def _join(self, message: CheckIn, now: float) -> _Run:
        """Record a check-in; a new session of a known run replaces the old one."""
        run = self._runs.get(message["run"])
        if run is None or run.check_in["session"] != message["session"]:
            if run is not None:
                self._forget(message["run"], now)
            self._joined += 1
            run = _Run(message, now, self._joined, self._virtual, paused=message["paused"], empty_since=now)
            self._runs[message["run"]] = run
            if now < self._quiet_until:  # the lost scheduler knew what is drained; its runs still remember
                self._drained |= set(message["drained"])
        run.check_in, run.heard = message, now
        if set(run.fits) != set(message["fits"]):
            run.fits = SlotSet(message["fits"])
            every = set[SlotKey]().union(*(other.fits for other in self._runs.values()))
            self._gpus = Counter(node for node, kind, _ in every if kind == "gpu")
        return run

    def _forget(self, name: str, now: float) -> None:
        self._release((key for key, lease in self._leases.items() if lease.run == name), now)
        self._offers = {key: offer for key, offer in self._offers.items() if offer.run != name}
        del self._runs[name]

    def _release(self, keys: Iterable[SlotKey], now: float) -> None:
        for key in list(keys):
            took = now - self._leases.pop(key).since
            # Every release counts, also of trials that were cancelled or lost: it is the time for which a slot really
            # is taken.
            self._typical = MEMORY * self._typical + (1 - MEMORY) * took

    def _lease(self, key: SlotKey, name: str, now: float) -> None:
        # A lease that is there keeps its beginning: a repeated check-in must not make a trial look shorter.
        self._leases.setdefault(key, _Lease(name, now))
        self._offers = {other: offer for other, offer in self._offers.items() if not conflict(other, key)}

    def _held_by(self, name: str) -> list[SlotKey]:
        return [key for key, lease in self._leases.items() if lease.run == name]

    def _leased(self, key: SlotKey) -> bool:
        return key in self._leases or any(conflict(key, other) for other in self._leases)

    def _devices(self, key: SlotKey) -> int:
        """Count the devices that a trial on that slot takes from others: on a CPU slot, every GPU of the node."""
        return 1 if key[1] == "gpu" else max(1, self._gpus[key[0]])

    def _may_use(self, run: _Run, key: SlotKey) -> bool:
        name = run.check_in["run"]
        if key in self._leases:
            return self._leases[key].run == name  # asked again, because the answer was lost
        if self._leased(key):
            return False
        if key in self._offers and self._offers[key].run == name:
            return True  # also during the grace seconds after it expired
        # The offer is gone, but nothing stands against it: the run heard of it from a scheduler that was lost, or its
        # offer ended while no other run wanted the slot.
        reserved = any(conflict(key, other) and offer.run != name for other, offer in self._offers.items())
        return not reserved and not run.paused and key[0] not in self._drained and key in run.fits

    def _make_offers(self, now: float) -> None:
        """Withdraw expired offers, then offer every free slot."""
        self._end_offers(now)
        if now < self._quiet_until:
            return
        taken = SlotSet()
        has: Counter[str] = Counter()
        owners: list[tuple[SlotKey, _Lease | _Offer]] = [*self._leases.items(), *self._offers.items()]
        for key, owner in owners:
            taken.add(key)
            has[owner.run] += self._devices(key)
        for name, run in self._runs.items():
            if has[name] or not self._is_active(run):
                run.empty_since = now
        active = [run for run in self._runs.values() if self._is_active(run)]
        # Runs that lately left an offer unused get only what the others leave.
        for passed_over in (False, True):
            self._offer_free_slots([run for run in active if (now < run.passed_until) == passed_over], taken, has, now)
        self._set_expiry(active, now)

    def _end_offers(self, now: float) -> None:
        for key, offer in list(self._offers.items()):
            run = self._runs[offer.run]
            if key not in run.fits:
                del self._offers[key]
            elif offer.until is not None and now >= offer.until + GRACE_SECONDS:
                del self._offers[key]
                if not offer.withdrawn:
                    # It let the offer lapse. It waits behind the others for a while, and loses the advantage over the
                    # slowest of them: a run that never uses its turn must not keep the first place in the queue.
                    run.passed_until = now + run.pass_seconds
                    others = [one.virtual for one in self._runs.values() if one is not run and self._is_active(one)]
                    run.virtual = max(run.virtual, min(others, default=run.virtual))
                    run.pass_seconds = min(2 * run.pass_seconds, PASS_AT_MOST_SECONDS)
            elif (run.paused or key[0] in self._drained) and not offer.withdrawn:
                offer.until, offer.withdrawn = now, True

    def _offer_free_slots(self, waiting: list[_Run], taken: SlotSet, has: Counter[str], now: float) -> None:
        """Offer free slots to the waiting runs, one at a time, to the lowest virtual time first.

        `taken` and `has` (devices by run) are brought up to date.
        """

        def free_slots(run: _Run) -> Iterator[SlotKey]:
            for key in run.check_in["fits"]:
                if key[0] not in self._drained and not taken.conflicts_with(key):
                    yield key

        def turn(run: _Run) -> tuple[float, int]:
            # Each slot that it has or is offered counts as one typical trial already charged. Without this, virtual
            # times would stand still within this loop, and the first in the queue would get every free slot.
            return run.virtual + has[run.check_in["run"]] * self._typical / run.check_in["priority"], run.joined

        # One iterator a run: slots only become taken during this loop, so none needs to be looked at twice.
        free = {run.check_in["run"]: free_slots(run) for run in waiting}
        while waiting:
            run = min(waiting, key=turn)
            name = run.check_in["run"]
            key = next(free[name], None)
            if key is not None:
                self._offers[key] = _Offer(name, now)
                has[name] += self._devices(key)
                if run.pass_seconds > PASS_SECONDS:
                    waiting.remove(run)  # it lately left offers unused: one is enough to see whether it is ready
            else:
                waiting.remove(run)
                if now - run.empty_since <= STARVED_SECONDS:
                    continue
                # The run starves: keep its most nearly free slot from the runs that come after it, by marking the
                # slot as taken without offering it. What runs there in the way ends in time.
                usable = (key for key in run.check_in["fits"] if key[0] not in self._drained)
                key = min(usable, key=lambda key: sum(conflict(key, other) for other in self._leases))
            taken.add(key)

    def _set_expiry(self, active: list[_Run], now: float) -> None:
        """Let an offer expire only while another active run could use its slot.

        A run that has an unused offer itself is no rival, nor is one that is passed over now.
        """
        offered = {offer.run for offer in self._offers.values()}
        rivals = [run for run in active if now >= run.passed_until and run.check_in["run"] not in offered]
        for key, offer in self._offers.items():
            if offer.withdrawn:
                continue
            # Nobody else wants it, so the run may think as long as it likes: an offer that expires for no rival would
            # only leave the device idle.
            if not any(run.fits.conflicts_with(key) for run in rivals):
                offer.until = None
            elif offer.until is None:
                offer.until = max(offer.since + OFFER_SECONDS, now + PROMISE_SECONDS)

    def _share_of(self, run: _Run) -> float:
        whole = sum(other.used for other in self._runs.values())
        return run.used / whole if whole else 0.0

    def _answer(self, run: _Run, now: float) -> Answer:
        name = run.check_in["run"]
        offered = []
        for key, offer in self._offers.items():
            left = PROMISE_SECONDS if offer.until is None else offer.until - now
            if offer.run == name and left > 0:
                offered.append((key, left))
        others = [
            OtherRun(
                tag=other.check_in["tag"],
                host=other.check_in["host"],
                used=len(self._held_by(other.check_in["run"])),
            )
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
