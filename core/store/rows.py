"""Rows of the ledger as frozen dataclasses: the form in which everything else reads a ledger."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from autoresearch.core.config import RunConfig
from autoresearch.core.errors import LedgerError
from autoresearch.core.judge.decision import Role
from autoresearch.core.proposal import Origin, Status
from autoresearch.core.store import contents
from autoresearch.core.store.schema import COLUMN_TYPES

SHORT_TRIAL = "short trial"
"""Kind of the events that hold short trials: the figures of their results, with "experiment", "subject" and "seconds".
They are no rows of `trials`, so that nothing takes one for a score."""
_VERIFY = "`ar status --verify` says which row is not as it was written"
ExperimentState = Literal["proposed", "running", "trained", "scored", "decided"]
RunState = Literal["running", "interrupted", "finished", "failed"]


@dataclass(frozen=True)
class RunRow:
    """One run. Times are seconds since the epoch."""

    tag: str
    state: RunState
    ended: str | None
    """Reason for its end, in words; None while it runs."""
    created: float
    config: Mapping[str, Any]
    """Settings that every trial of the run has in common (see core.config.RunConfig)."""
    base_commit: str
    """HEAD when the run was started."""
    incumbent: int | None
    """Number of the best experiment so far; None until the baseline is decided."""
    pid: int | None
    host: str | None
    heartbeat: float | None
    """Time of the writing process's last sign of life."""


@dataclass(frozen=True)
class ExperimentRow:
    """One experiment. Number 0 is the baseline."""

    number: int
    state: ExperimentState
    parent: int
    """The experiment whose source was edited; the baseline names itself."""
    commit: str | None
    source_sha256: str
    hypothesis: str
    category: str
    researcher: str
    predicted_delta: float | None
    parameters: Mapping[str, Any]
    created: float
    decided: float | None = None
    status: Status | None = None
    reason: str | None = None
    val_bpb: float | None = None
    """val_bpb of its first trial."""
    estimate: float | None = None
    delta: float | None = None
    trials: int = 0
    peak_memory_mb: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    usd: float | None = None
    judged: Mapping[str, Any] = field(default_factory=dict)
    """The numbers behind `reason` (see core.judge.decision.Decision.facts)."""
    origin: Origin | None = None
    """The peer run's change that it tries; None for its researcher's own idea."""

    @property
    def change(self) -> float | None:
        """Return the measured difference from the best file of its time, in bits per byte; None for the baseline.

        A judge that estimates nothing writes the measured difference down as its delta.
        """
        if self.number == 0:
            return None
        measured = self.judged.get("measured")
        if isinstance(measured, int | float) and math.isfinite(measured):
            return float(measured)
        return self.delta


@dataclass(frozen=True)
class TrialRow:
    """One trial of an experiment, finished when `status` is set."""

    experiment: int
    k: int
    """1, 2, ... within the experiment; its folder is trials/<experiment>-<k>."""
    role: Role
    subject: int
    """Number of the experiment whose source it ran: another one when the incumbent is measured again."""
    seed: int
    starts: int
    """Number of its starts: more than one when the loop died or was stopped during it."""
    started: float
    ended: float | None
    status: Literal["ok", "stopped", "crash", "invalid", "timeout"] | None
    val_bpb: float | None
    result: Mapping[str, Any]
    """The whole TrialResult; empty until there is one."""


@dataclass(frozen=True)
class SubmissionRow:
    """The outcome of a submission once the loop has taken it up."""

    outcome: Literal["accepted", "repeated", "failed", "withdrawn"]
    experiment: int | None
    """The experiment that it became, or that had its source before."""
    reason: str | None
    """Why it is no experiment; None where it is one."""


@dataclass(frozen=True)
class Totals:
    """Sums over a run. `decided` and `by_status` leave the baseline out."""

    decided: int
    by_status: Mapping[str, int]
    tokens_in: int
    tokens_out: int
    usd: float | None
    """None when the price of any proposal is not known."""
    failed_proposals: int


_ALLOWED = {
    table: {name: (int, float) if kind is float else kind for name, kind in columns.items()}
    for table, columns in COLUMN_TYPES.items()
}
"""The types that a value of each column may have, besides None where the row's field may be None."""
_NEEDED = {
    table: [
        one.name
        for one in fields(row)
        if one.name in COLUMN_TYPES[table] and not re.search("None|Mapping", str(one.type))
    ]
    for table, row in (("runs", RunRow), ("experiments", ExperimentRow), ("trials", TrialRow))
}
"""Columns that hold a value in every row."""
_TIMES = ("created", "decided", "started", "ended", "heartbeat")
_LAST_SECOND = 253_402_300_799.0
"""End of the year 9999, in seconds since the epoch: no calendar goes on."""


def _check_types(table: str, row: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a value is not one of its column's, which sqlite itself lets in."""
    allowed = _ALLOWED[table]
    for name, value in row.items():
        if value is not None and name in allowed and not isinstance(value, allowed[name]):
            raise ValueError(f"{name} is {contents.shown(value)}")
        if name in _TIMES and isinstance(value, (int, float)) and not 0 <= value <= _LAST_SECOND:
            raise ValueError(f"{name} is {value:g}")
        if isinstance(value, float) and not contents.real(value):  # sqlite has infinities
            raise ValueError(f"{name} is {value:g}")
    for name in _NEEDED[table]:
        if row[name] is None:
            raise ValueError(f"{name} is nothing")


def _object(text: str | None, name: str = "its JSON") -> dict[str, Any]:
    """Parse a JSON object; None is an empty one. Raises `ValueError`; `name` is what it says of the object."""
    try:
        found = json.loads(text or "{}")
    except RecursionError:
        raise ValueError(f"{name} has lists within lists without end") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not an object")
    return found


def _checked(name: str, text: str | None, kinds: Mapping[str, contents.Check]) -> dict[str, Any]:
    """Parse the JSON object of a column and check its values. Raises `ValueError`."""
    found = _object(text, name)
    contents.check(name, found, kinds)
    return found


def payload_of(kind: str, text: str) -> dict[str, Any]:
    """Parse the payload of an event of that kind and check its values. Raises `ValueError`."""
    found = _object(text, "payload")
    kinds, needed = contents.EVENTS.get(kind, ({}, ()))
    contents.check("payload", found, kinds, needed)
    return found


class StoredConfig(dict[str, Any]):
    """The settings of a run as its ledger holds them. A setting that is not there is a fault of the ledger."""

    def __missing__(self, name: str) -> Any:
        """Raise `LedgerError`: a run is always started with all of its settings."""
        raise LedgerError(f"the run's ledger does not say which {name} it was started with.", fix=_VERIFY)


_CONFIG_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "tuple[int, ...]": list,
}


def _config(text: str) -> StoredConfig:
    """Parse a run's settings. Raises `ValueError` where one is of another type than `RunConfig` says."""
    found = StoredConfig(_object(text, "config"))
    for one in fields(RunConfig):
        value = found.get(one.name)
        allowed = _CONFIG_TYPES.get(str(one.type))
        if value is None or allowed is None:
            continue
        fits = isinstance(value, allowed) and not isinstance(value, bool)
        if isinstance(value, int | float) and not contents.real(value):
            fits = False
        if isinstance(value, list) and not all(type(item) is int for item in value):
            fits = False
        if not fits:
            raise ValueError(f"config.{one.name} is {contents.shown(value)}")
    return found


def run_row(row: Mapping[str, Any]) -> RunRow:
    """Convert a row of the table `runs`. Raises `TypeError` or `ValueError` at a damaged one, like its neighbours."""
    _check_types("runs", row)
    names = ("tag", "state", "ended", "created", "base_commit", "incumbent", "pid", "host", "heartbeat")
    return RunRow(config=_config(row["config"]), **{name: row[name] for name in names})


def experiment_row(row: Mapping[str, Any]) -> ExperimentRow:
    """Convert a row of the table `experiments`."""
    _check_types("experiments", row)
    apart = ("commit_id", "parameters", "metrics", "fingerprint", "judged", "origin")
    plain = {k: v for k, v in row.items() if k not in apart}
    origin = row.get("origin")  # neither this nor `judged` is there in an older ledger
    return ExperimentRow(
        commit=row["commit_id"],
        parameters=_object(row["parameters"], "parameters"),
        metrics=_checked("metrics", row["metrics"], contents.METRICS),
        judged=_checked("judged", row.get("judged"), contents.JUDGED),
        origin=Origin(**_checked("origin", origin, contents.ORIGIN)) if origin else None,
        **plain,
    )


def trial_row(row: Mapping[str, Any]) -> TrialRow:
    """Convert a row of the table `trials`."""
    _check_types("trials", row)
    plain = {k: v for k, v in row.items() if k not in ("result", "folder")}
    return TrialRow(result=_result(row["result"] or "{}"), **plain)


def submission_row(row: Mapping[str, Any]) -> SubmissionRow:
    """Convert an event about a submission."""
    payload = _object(row["payload"])
    return SubmissionRow(payload["outcome"], row["experiment"], payload["reason"])


def ran_on(trial: TrialRow, machine: str) -> bool:
    """Tell whether a trial compares with others of `machine`. A trial without a recorded machine does."""
    there = trial.result.get("machine")
    return not machine or not there or there == machine


def machine_of(trials: Iterable[TrialRow]) -> str:
    """Return the machine of the scored trial that ended last; "" where there is none or it is not recorded."""
    scored = [trial for trial in trials if trial.val_bpb is not None and trial.ended is not None]
    # Trials come by experiment, and an earlier experiment may have gone on for longer than a later one.
    last = max(scored, key=lambda trial: trial.ended or 0.0, default=None)
    return "" if last is None else str(last.result.get("machine") or "")


COMPUTES_ITSELF = ("cpu", "numpy")
"""Kinds of devices that are the processor itself, so that its time tells what a trial got."""


def processors(result: Mapping[str, Any]) -> float | None:
    """Return the number of processors that a trial's training kept busy on average; None where it is not known."""
    used, seconds = result.get("cpu_seconds"), result.get("train_seconds")
    return used / seconds if used and seconds else None


@lru_cache(maxsize=4096)
def _result(text: str) -> Mapping[str, Any]:
    """Parse a result. Cached, because an incumbent's trials, up to hundreds, are read for every decision."""
    return MappingProxyType(_checked("result", text, contents.RESULT))
