"""A run as researchers see it: ledger rows turned into the history that they are asked with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoresearch.core.events import FirstBatch, Log, read_events
from autoresearch.core.proposal import Attempt, Finding, History, InFlight, Withdrawn
from autoresearch.core.run.measurements import Measurements, changed, train_tokens
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.remarks import NO_MARKS, Marks
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.textfile import read_text
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trial.profile import PAGE

POINTS = 12
"""Points of a loss curve."""
CHANGE = 1.15
"""Factor of a figure of a file's shape from which on it is another shape."""
RECENT = 6
"""Decisions for which a withdrawn proposal is told of."""
PROFILE_CHARACTERS = 4000
"""Characters of a profile's page that are passed on: the parts of a step and the longest operations."""


class StoredAttempt(Attempt):
    """An attempt that reads its source from the ledger each time: all sources of a long run would fill the memory."""

    @property
    def source(self) -> str:
        """The train file."""
        read: Callable[[], str] = self.__dict__["_read_source"]
        return read()

    @source.setter
    def source(self, value: str | Callable[[], str]) -> None:
        # The frozen dataclass's own __init__ arrives here, with a reader from `attempt_of`, or with a text from
        # `dataclasses.replace`.
        self.__dict__["_read_source"] = value if callable(value) else partial(str, value)


def attempt_of(row: ExperimentRow, source: str | Callable[[], str]) -> Attempt:
    """Return a decided experiment as an attempt. `source` is its train file, or reads it whenever it is asked for."""
    return StoredAttempt(
        experiment=row.number,
        source=source,  # type: ignore[arg-type]
        status=row.status or "discard",
        reason=row.reason or "",
        hypothesis=row.hypothesis,
        category=row.category,
        researcher=row.researcher,
        predicted_delta=row.predicted_delta,
        val_bpb=row.val_bpb,
        estimate=row.estimate,
        delta=row.delta,
        parent=row.parent,
        parameters=row.parameters,
        metrics=row.metrics,
        origin=row.origin,
    )


def in_flight_of(row: ExperimentRow, source: str) -> InFlight:
    """Return an undecided experiment as researchers see it."""
    return InFlight(
        experiment=row.number,
        source=source,
        hypothesis=row.hypothesis,
        category=row.category,
        researcher=row.researcher,
        predicted_delta=row.predicted_delta,
        parent=row.parent,
        parameters=row.parameters,
        origin=row.origin,
    )


def with_marks(attempt: Attempt, marks: Mapping[int, Marks]) -> Attempt:
    """Add the owner's notes and pin to an attempt, where there are any."""
    mine = marks.get(attempt.experiment, NO_MARKS)
    return attempt if mine == NO_MARKS else changed(attempt, notes=mine.notes, pinned=mine.pinned)


def withdrawn_of(events: Sequence[Mapping[str, Any]], decided: int) -> tuple[Withdrawn, ...]:
    """Return the proposals that were withdrawn during the last `RECENT` of `decided` decisions.

    `events` are the payloads of the ledger's events of that kind; those of earlier versions have no hypothesis.
    """
    return tuple(
        Withdrawn(one["hypothesis"], one.get("category", ""), one.get("reason", ""))
        for one in events
        if one.get("hypothesis") and int(one.get("decided", 0)) > decided - RECENT
    )


def with_notes(attempt: Attempt, ledger: LedgerReader, attempts: Sequence[Attempt]) -> Attempt:
    """Add the loss curve of its source's first trial and the last profile to an attempt's metrics, if there are any.

    `attempts` are the run's: a profile of one with another shape than this one's tells nothing of it.
    """
    config, run_folder = ledger.run().config, ledger.folder
    first = ledger.first_trial(attempt.experiment)
    folder = None if first is None else trial_folder(run_folder, first.experiment, first.k)
    curve = "" if folder is None else loss_curve(folder, config["train_seconds"])
    # Without the time of a step: a busy machine alone would take the profile away.
    shapes = {one.experiment: shape_of(one.metrics)[:2] for one in attempts}
    profile = own_profile(run_folder, attempt.experiment, shapes) or last_profile(
        run_folder.parent, config["backend"], config["preset"], attempt.source
    )
    notes = {name: text for name, text in (("loss_curve", curve), ("profile", profile)) if text}
    return replace(attempt, metrics={**attempt.metrics, **notes})


def history_of(
    config: Mapping[str, Any],
    program: str,
    attempts: Sequence[Attempt],
    incumbent: Attempt,
    findings: Sequence[Finding] = (),
    in_flight: Sequence[InFlight] = (),
    thinking: int = 0,
    measured: Measurements | None = None,
    marks: Mapping[int, Marks] | None = None,
    withdrawn: Sequence[Withdrawn] = (),
) -> History:
    """Return the history of a run. `config` is the run's, as the ledger holds it.

    `measured` adds its trials, `marks` its owner's notes and pins by experiment.
    """
    if measured is not None:
        attempts, incumbent = measured.added(attempts, incumbent)
    if marks:
        attempts = [with_marks(one, marks) for one in attempts]
        incumbent = with_marks(incumbent, marks)
    return History(
        program=program,
        backend=config["backend"],
        device=config["device"],
        preset=config["preset"],
        budget_seconds=config["train_seconds"],
        seed=config["seed"],
        vocabularies=tuple(config["vocabularies"]),
        incumbent=incumbent,
        attempts=tuple(attempts),
        in_flight=tuple(in_flight),
        thinking=thinking,
        withdrawn=tuple(withdrawn),
        findings=tuple(findings),
        noise=measured.noise if measured is not None else None,
        paired_noise=measured.paired_noise if measured is not None else None,
        train_tokens=train_tokens(config["prepared"], config["vocabularies"]) if "prepared" in config else {},
    )


# ---- notes on the incumbent: its training loss over time, and the last page of `ar train --profile`


def loss_curve(folder: Path, train_seconds: float, points: int = POINTS) -> str:
    """Return a trial's training loss such as "3.91 at 8 %, 3.2 at 17 %"; empty where it logged none.

    `folder` is the trial's. The loss is the train file's own count, in nats; at most `points` points are told.
    """
    losses = _losses(folder)
    if not losses or train_seconds <= 0:
        return ""
    chosen = sorted({round(i * (len(losses) - 1) / max(1, points - 1)) for i in range(points)})
    return ", ".join(f"{losses[i][1]:.4g} at {min(1.0, losses[i][0] / train_seconds):.0%}" for i in chosen)


def _losses(folder: Path) -> list[tuple[float, float]]:
    """Return seconds since the first batch, and loss, of every point that a trial has logged."""
    found: list[tuple[float, float]] = []
    started: float | None = None
    for event in read_events(folder):
        if isinstance(event, FirstBatch):
            started = event.t
        elif isinstance(event, Log) and started is not None and event.t is not None and event.loss is not None:
            found.append((event.t - started, event.loss))
    return found


def profile_folder(run_folder: Path, experiment: int) -> Path:
    """Return the folder of the loop's own profile of an experiment's source."""
    return run_folder / "profiles" / str(experiment)


def shape_of(figures: Mapping[str, Any]) -> tuple[float, ...]:
    """Return parameters, tokens a step and seconds a step of a trial with these figures; () where one is missing."""
    params, tokens, steps, seconds = (figures.get(name) or 0 for name in ("params", "tokens", "steps", "train_seconds"))
    return (float(params), tokens / steps, seconds / steps) if params and tokens and steps and seconds else ()


def same_shape(now: Sequence[float], then: Sequence[float]) -> bool:
    """Tell whether two shapes are about the same, also where one is not known."""
    return not now or not then or all(1 / CHANGE < a / b < CHANGE for a, b in zip(now, then, strict=True))


def own_profile(run_folder: Path, incumbent: int, shapes: Mapping[int, Sequence[float]] = MappingProxyType({})) -> str:
    """Return the loop's newest profile of the incumbent, or of an earlier one of its shape; "" without one."""
    folders = [one for one in profile_folder(run_folder, 0).parent.glob("*") if one.name.isdigit()]
    for folder in sorted(folders, key=lambda one: -int(one.name)):
        number = int(folder.name)
        if not same_shape(shapes.get(incumbent, ()), shapes.get(number, ())):
            continue  # the best file's own is made soon
        try:
            page = (folder / PAGE).read_text(encoding="utf-8").strip()[:PROFILE_CHARACTERS]
        except (OSError, UnicodeDecodeError):
            continue
        which = "" if number == incumbent else ", which had about the same shape as the best file now"
        return f"Measured by the loop in experiment {number}'s file{which}.\n\n{page.removeprefix('# ')}"
    return ""


def last_profile(runs: Path, backend: str, preset: str, incumbent: str) -> str:
    """Return the newest profile of this backend and preset under `runs`/trials, with its date; "" without one.

    `incumbent` is the source of the best train file so far.
    """
    named = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(backend)}(-\d+)?")
    for path in sorted((runs / "trials").glob(f"*/{PAGE}"), reverse=True):
        if named.fullmatch(path.parent.name) and _preset_of(path.parent) == preset:
            try:
                page = path.read_text(encoding="utf-8").strip()[:PROFILE_CHARACTERS]
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            except (OSError, UnicodeDecodeError):
                continue
            same = _same(path.parent, incumbent)
            what = "the best train file so far" if same else "another version of the train file"
            return f"Of {what}, {when}.\n\n{page.removeprefix('# ')}"
    return ""


def _preset_of(trial: Path) -> str | None:
    try:
        return str(json.loads(read_text(trial / "result.json"))["preset"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _same(trial: Path, incumbent: str) -> bool:
    try:
        return fingerprint(read_text(trial / "train.py")) == fingerprint(incumbent)
    except (OSError, UnicodeDecodeError):
        return False
