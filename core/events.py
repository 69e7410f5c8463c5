"""Everything that a loop and its trials report while they run: each event's name and fields, and its JSON form.

An event is a frozen dataclass. Its JSON form is one flat object, `{"event": name, ...}` with its fields. Observers
receive the objects. A trial also writes those of its own as lines of `events.jsonl`, each with "t", the seconds since
the trial began; `EventFollower` reads that file, while it grows or afterwards.

Part of what an event says comes from a train file, which nobody trusts. `from_json` therefore checks every value
against the type of its field, and gives None for what is no event.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeGuard, TypeVar, get_type_hints

from autoresearch.backends.contract import Device

EVENTS_FILE = "events.jsonl"
"""Name of the file with a trial's events, in the trial's folder."""
HUGE = 1e100
"""A train file may log any number, and there are integers that no float can hold."""
TEXT_LIMIT = 200
"""Characters of a text in an event of an untrusted child: it ends up on a person's screen."""
SCALARS_LIMIT = 40
"""Numbers that one `Log` event may carry besides its own fields."""
LOOK_BYTES = 4 * 2**20
"""Most bytes that one look at an events file reads: a train file decides how long it gets."""
FILE_BYTES = 17 * 2**20
"""Most bytes of a whole events file: what `core.trial.record` lets a trial write, and a little more."""


# ---- what events are made of
#
# A class that adds no field to its base has no decorator of its own. It inherits all that the decorator would make, and
# every child of a trial, which imports this file, starts a millisecond sooner for each.


@dataclass(frozen=True)
class Message:
    """Something with a name and typed fields that travels as one JSON object."""

    name: ClassVar[str]
    """Value of "event" in the JSON form."""

    def values(self) -> dict[str, Any]:
        """Return the fields as JSON values. A keyword-only field that is None does not apply, and is left out."""
        found = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        tags = {one.name for one in dataclasses.fields(self) if one.kw_only}
        return {name: value for name, value in found.items() if value is not None or name not in tags}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constructor's arguments from JSON values. Raises `ValueError` where a field is malformed."""
        return {name: check(values.get(name)) for name, check in _checks(cls).items()}


@dataclass(frozen=True, kw_only=True)
class Event(Message):
    """Something that observers are told."""

    experiment: int | None = None
    """Number of the experiment; None for a trial outside a run, or a proposal that became no experiment."""


Observer = Callable[[Event], None]
"""Is told what happens while it happens. Must be cheap, must not raise, and may be called from any thread."""


@dataclass(frozen=True, kw_only=True)
class TrialEvent(Event):
    """Something that happens in one trial."""

    k: int | None = None
    """Number of the trial in its experiment, from 1; None for a trial outside a run."""
    t: float | None = None
    """Seconds since the trial began; set in events.jsonl alone."""


# ---- in a trial, in the order in which they usually come


class Compiling(TrialEvent):
    """The incumbent is compiled for the caches of later trials."""

    name = "compiling"


@dataclass(frozen=True)
class Spawned(TrialEvent):
    """A process of the trial was started."""

    name = "spawned"
    role: str
    """"feed", "compile", "train", "score" or "audit"; "steps" in a comparison of backends."""
    pids: tuple[int, ...] = ()
    isolation: str | None = None
    """The isolation level that the process runs at."""


@dataclass(frozen=True)
class DeviceFound(TrialEvent):
    """The train child has said what it computes on."""

    name = "device"
    device: Device

    def values(self) -> dict[str, Any]:
        """Return the device's fields beside the event's own."""
        values = super().values()
        return {**vars(values.pop("device")), **values}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments. The device's texts are cut to `TEXT_LIMIT` characters."""
        found = {name: check(values.get(name)) for name, check in _checks(Device).items()}
        texts = {name: value[:TEXT_LIMIT] for name, value in found.items() if isinstance(value, str)}
        tags = {name: check(values.get(name)) for name, check in _checks(TrialEvent).items()}
        return {"device": Device(**{**found, **texts}), **tags}


class Startup(TrialEvent):
    """The train file was imported and its model built."""

    name = "startup"


@dataclass(frozen=True)
class FirstBatch(TrialEvent):
    """The first real batch was handed out: the training clock starts."""

    name = "first_batch"
    monotonic: float | None = field(default=None, kw_only=True)
    """Monotonic seconds at that moment; set by the feeder alone, for the parent."""


@dataclass(frozen=True)
class Log(TrialEvent):
    """The train file has logged a point of its curve. Its claims, cut to plain numbers."""

    name = "log"
    step: float | None
    loss: float | None
    """Nats a token, as the train file counts it; None where it logged no finite number."""
    progress: float | None = None
    """Share of the time budget that is used up, 0..1."""
    scalars: Mapping[str, float | None] = field(default_factory=dict)
    """Further numbers that the train file names."""

    def values(self) -> dict[str, Any]:
        """Return the scalars beside the event's own fields, which win."""
        values = super().values()
        return {**values.pop("scalars"), **values}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments; every further number is a scalar."""
        checks = _checks(cls)
        others = {name: value for name, value in values.items() if name not in checks and name != "event"}
        scalars = {name[:TEXT_LIMIT]: value for name, value in others.items() if value is None or is_number(value)}
        found = {name: check(values.get(name)) for name, check in checks.items()}
        return {**found, "scalars": dict([*scalars.items()][:SCALARS_LIMIT])}


@dataclass(frozen=True)
class FeedProgress(TrialEvent):
    """The feeder's count of the text it has handed out so far."""

    name = "progress"
    tokens: int
    """Tokens of rows, or of documents where no row was asked for: a file that reads to remember trains on rows."""
    batches: int | None = None
    epoch: int | None = None
    """Number of the present pass over the corpus, from 0."""


@dataclass(frozen=True)
class MemoryUsed(TrialEvent):
    """Host memory of the train child and all below it, in MiB."""

    name = "memory"
    mb: float


@dataclass(frozen=True)
class FeedFault(TrialEvent):
    """The feeder hands out nothing more."""

    message: str
    """Reason in words."""


class BadRequest(FeedFault):
    """The train child has asked the feeder for something that there is not. Nothing more is handed out."""

    name = "bad_request"


class DataFault(FeedFault):
    """The feeder cannot use the prepared corpus. Sent to the parent, which ends the trial."""

    name = "data_error"


@dataclass(frozen=True)
class FeedEnded(TrialEvent):
    """The feeder's last count."""

    name = "end"
    reason: str
    """"deadline" or "closed"."""
    tokens: int
    batches: int
    epoch: int


class Trained(TrialEvent):
    """`train` has returned."""

    name = "trained"


class Frozen(TrialEvent):
    """The weights were checked and are out of the train child's reach; the child is gone."""

    name = "frozen"


@dataclass(frozen=True)
class Scoring(TrialEvent):
    """The number of rows of the split that are scored so far."""

    name = "scoring"
    done: int
    total: int


@dataclass(frozen=True)
class Scored(TrialEvent):
    """The score is there; the audit may follow."""

    name = "scored"
    val_bpb: float | None


class Audited(TrialEvent):
    """The causality audit has passed."""

    name = "audited"


@dataclass(frozen=True)
class Finished(TrialEvent):
    """The trial is over, however it ended."""

    name = "finished"
    result: Mapping[str, Any]
    """Fields of `core.trial.request.TrialResult` as JSON values."""


# ---- in a run


@dataclass(frozen=True, kw_only=True)
class ExperimentEvent(Event):
    """Something that happens to one experiment."""

    experiment: int = field()  # required here: the base class's default must not be inherited


@dataclass(frozen=True)
class ReasonedEvent(ExperimentEvent):
    """Something that happens to one experiment, and why."""

    reason: str


class Proposing(ExperimentEvent):
    """The researcher is asked, and nothing else goes on. `experiment` is the number that its proposal will have."""

    name = "proposing"


class Thinking(ExperimentEvent):
    """The researcher is asked while trials run. `experiment` is the number that its proposal will have."""

    name = "thinking"


@dataclass(frozen=True)
class ProposalRefused(Event):
    """The researcher has failed, or proposed what was tried before."""

    name = "proposal_refused"
    kind: str
    """"failed", "unusable" or "repeated"."""
    reason: str


@dataclass(frozen=True)
class ExperimentBegun(ExperimentEvent):
    """The first trial of an experiment is about to start."""

    name = "experiment"
    description: str


class Profiling(ExperimentEvent):
    """A short training measures where a step's time goes in the incumbent, `experiment`."""

    name = "profiling"


class Remeasuring(ExperimentEvent):
    """An idle device measures the incumbent, `experiment`, once more while the researcher thinks."""

    name = "remeasuring"


@dataclass(frozen=True)
class AwaitingProposals(Event):
    """The loop ends as soon as proposals in the making have come, which are paid for."""

    name = "awaiting_proposals"
    count: int
    seconds: float
    """Longest time that it waits."""


class Paused(Event):
    """A person has asked the loop to pause: no trial and no proposal begins."""

    name = "paused"


class Resumed(Event):
    """A paused loop goes on."""

    name = "resumed"


class Withdrawn(ReasonedEvent):
    """A waiting proposal no longer fits the incumbent."""

    name = "withdrawn"


class Repeated(ReasonedEvent):
    """A trial says nothing about its source and is run again."""

    name = "repeated"


class SlowerFile(ReasonedEvent):
    """A train file is slow by itself: its trial counts as it is."""

    name = "slower_file"


class SeedIgnored(ReasonedEvent):
    """Two trials with different seeds gave the same weights."""

    name = "seed_ignored"


@dataclass(frozen=True)
class Decided(ExperimentEvent):
    """An experiment has its verdict."""

    name = "decided"
    status: str
    """Verdict as in the ledger: "keep", "discard", "crash" ..."""
    val_bpb: float | None = None
    delta: float | None = None
    """Measured difference from the incumbent in bits per byte; negative is better."""
    reason: str | None = None


class Demoted(ReasonedEvent):
    """An earlier improvement did not hold up, and is no longer the incumbent."""

    name = "demoted"


Kinds = Mapping[str, type[Message]]


def kinds_of(classes: Collection[type[Message]]) -> Kinds:
    """Index classes by the names of their JSON form."""
    return {kind.name: kind for kind in classes}


EVENTS: Kinds = kinds_of([
    Compiling, Spawned, DeviceFound, Startup, FirstBatch, Log, FeedProgress, MemoryUsed, BadRequest, DataFault,
    FeedEnded, Trained, Frozen, Scoring, Scored, Audited, Finished,
    Proposing, Thinking, Profiling, Remeasuring, AwaitingProposals, Paused, Resumed, ProposalRefused, ExperimentBegun,
    Withdrawn, Repeated, SlowerFile, SeedIgnored, Decided, Demoted,
])  # fmt: skip


# ---- to JSON and back


def to_json(message: Message) -> dict[str, Any]:
    """Return the JSON form. JSON has no NaN: a number that is not finite becomes None."""
    return {"event": message.name, **{name: json_value(value) for name, value in message.values().items()}}


def from_json(values: Any, kinds: Kinds = EVENTS) -> Message | None:
    """Return the message of one of these kinds that a JSON value stands for, or None where it stands for none.

    An optional field with a value of another type becomes None; a required one makes the whole value malformed.
    """
    kind = kinds.get(values["event"]) if isinstance(values, dict) and isinstance(values.get("event"), str) else None
    if kind is None:
        return None
    try:
        return kind(**kind.read(values))
    except ValueError:
        return None


def parse_line(line: bytes, kinds: Kinds = EVENTS) -> Message | None:
    """Return the message in a line of JSON, or None where there is none.

    Half a surrogate pair, which JSON can say and UTF-8 cannot, becomes a question mark.
    """
    try:
        values = json.loads(line)
        if b"\\u" in line or b"\xed" in line:
            values = json.loads(json.dumps(values, ensure_ascii=False).encode("utf-8", errors="replace"))
        return from_json(values, kinds)
    except (ValueError, RecursionError):
        return None


def is_number(value: Any) -> TypeGuard[float]:
    """Say whether a value is a number that can be drawn: finite, not huge, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < HUGE


def json_value(value: Any) -> Any:
    """Return a value as it comes back from JSON: a number that is not finite becomes None, a tuple a list."""
    # A list already here: on a fleet no JSON text lies between sender and reader.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_value(one) for key, one in value.items()}
    return [json_value(one) for one in value] if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _number(value: Any) -> float:
    if not is_number(value):
        raise ValueError("no number")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("no whole number")
    return value


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return tuple(map(_whole, value))


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


T = TypeVar("T")


def _optional(check: Callable[[Any], T]) -> Callable[[Any], T | None]:
    def checked(value: Any) -> T | None:
        try:
            return check(value)
        except ValueError:
            return None

    return checked


_CHECKS: Mapping[Any, Callable[[Any], Any]] = {
    str: _text, int: _whole, float: _number, bool: _flag, list[Any]: _list, tuple[int, ...]: _wholes,
    Mapping[str, Any]: _mapping,
    str | None: _optional(_text), int | None: _optional(_whole), float | None: _optional(_number),
}  # fmt: skip
"""Type of a field -> what checks a JSON value for it. Checks raise `ValueError`."""


def _checks(kind: type[Any]) -> dict[str, Callable[[Any], Any]]:
    """Return the check of each field. Fields of other types than `_CHECKS` has are read by their class itself."""
    return _read_checks(kind)  # type: ignore[arg-type]  # mypy takes the instances' hash for the class's


@functools.cache
def _read_checks(kind: type[Any]) -> dict[str, Callable[[Any], Any]]:
    hints = get_type_hints(kind)  # slow, and a long file has tens of thousands of events
    return {name: _CHECKS[hint] for name, hint in hints.items() if hint in _CHECKS}


# ---- events.jsonl


class EventFollower:
    """Reads the events that were added to a file since the last look. A line that is not whole yet waits."""

    def __init__(self, path: Path, look_bytes: int = LOOK_BYTES) -> None:
        self.path = path
        self._look_bytes = look_bytes
        self._offset, self._rest = 0, b""

    def new(self) -> Iterator[TrialEvent]:
        """Yield the new events. A missing file has none; lines that hold no event of a trial are skipped."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(self._look_bytes)
        except OSError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = parse_line(line)
            if isinstance(event, TrialEvent):
                yield event


def read_events(folder: Path) -> list[TrialEvent]:
    """Return every whole event that a trial has left in its folder."""
    return list(EventFollower(folder / EVENTS_FILE, FILE_BYTES).new())


def device_of(folder: Path) -> Device | None:
    """Return what a trial's train child said of its device; None where it said nothing."""
    return next((event.device for event in read_events(folder) if isinstance(event, DeviceFound)), None)


def loss_curve(folder: Path) -> list[tuple[float, float]]:
    """Return share of the budget (0..1) and loss of every point that a trial's train file has logged."""
    logged = [event for event in read_events(folder) if isinstance(event, Log)]
    return [(one.progress, one.loss) for one in logged if one.progress is not None and one.loss is not None]
