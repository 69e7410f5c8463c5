"""Rows of the ledger as frozen dataclasses: the form in which everything else reads a ledger."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from autoresearch.core.judge.decision import Role
from autoresearch.core.proposal import Origin, Status

SHORT_TRIAL = "short trial"
"""Kind of the events that hold short trials: the figures of their results, with "experiment", "subject" and "seconds".
They are no rows of `trials`, so that nothing takes one for a score."""
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


def run_row(row: Mapping[str, Any]) -> RunRow:
    """Convert a row of the table `runs`."""
    names = ("tag", "state", "ended", "created", "base_commit", "incumbent", "pid", "host", "heartbeat")
    config = json.loads(row["config"])
    if not isinstance(row["tag"], str) or not isinstance(config, dict) or not isinstance(row["created"], int | float):
        raise TypeError("the run's own row")
    return RunRow(config=config, **{name: row[name] for name in names})


def experiment_row(row: Mapping[str, Any]) -> ExperimentRow:
    """Convert a row of the table `experiments`."""
    apart = ("commit_id", "parameters", "metrics", "fingerprint", "judged", "origin")
    plain = {k: v for k, v in row.items() if k not in apart}
    origin = row.get("origin")  # neither this nor `judged` is there in an older ledger
    return ExperimentRow(
        commit=row["commit_id"],
        parameters=json.loads(row["parameters"]),
        metrics=json.loads(row["metrics"] or "{}"),
        judged=json.loads(row.get("judged") or "{}"),
        origin=Origin(**json.loads(origin)) if origin else None,
        **plain,
    )


def trial_row(row: Mapping[str, Any]) -> TrialRow:
    """Convert a row of the table `trials`."""
    plain = {k: v for k, v in row.items() if k not in ("result", "folder")}
    return TrialRow(result=_result(row["result"] or "{}"), **plain)


def submission_row(row: Mapping[str, Any]) -> SubmissionRow:
    """Convert an event about a submission."""
    payload = json.loads(row["payload"])
    return SubmissionRow(payload["outcome"], row["experiment"], payload["reason"])


def ran_on(trial: TrialRow, machine: str) -> bool:
    """Tell whether a trial compares with others of `machine`. A trial without a recorded machine does."""
    there = trial.result.get("machine")
    return not machine or not there or there == machine


def processors(result: Mapping[str, Any]) -> float | None:
    """Return the number of processors that a trial's training kept busy on average; None where it is not known."""
    used, seconds = result.get("cpu_seconds"), result.get("train_seconds")
    return used / seconds if used and seconds else None


@lru_cache(maxsize=4096)
def _result(text: str) -> Mapping[str, Any]:
    """Parse a result. Cached, because an incumbent's trials, up to hundreds, are read for every decision."""
    return MappingProxyType(json.loads(text))
