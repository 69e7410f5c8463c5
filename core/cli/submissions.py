"""Submissions, for `ar submit`, `ar result` and `ar mcp`: handing in a train file, running it, telling its outcome."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.core.cli.context import Settings, find_workspace
from autoresearch.core.cli.run.options import FleetOptions, RunOverrides
from autoresearch.core.errors import LedgerError, LockedError, PrerequisiteError, SourceError, UsageError

if TYPE_CHECKING:
    from autoresearch.core.config import Preset
    from autoresearch.core.events import Event
    from autoresearch.core.store.reader import LedgerReader
    from autoresearch.core.store.rows import ExperimentRow, RunRow

POLL_SECONDS = 0.3
"""Seconds between two looks at a run that somebody else writes."""
LOCK_SECONDS = 60.0
"""Seconds that choosing a run may wait for others who choose one in the same workspace."""


@dataclass(frozen=True)
class Change:
    """A change as its author describes it."""

    hypothesis: str
    category: str | None
    predicted_delta: float | None


def check_workspace(settings: Settings) -> None:
    """Raise `PrerequisiteError` where the workspace has no program.md or no train files."""
    folder = settings.workspace
    if find_workspace(folder) != folder or not (folder / "program.md").is_file():
        raise PrerequisiteError(
            f"{folder} is not a workspace: it has no program.md beside backends/.",
            fix="make one with `ar init DIR` and go there, or name one with --workspace",
        )


def check_change(why: str, predict: float | None) -> None:
    """Check what the author says of a change. Raises `UsageError`."""
    if not why.split():
        raise UsageError("--why is empty.", fix='say in one sentence what changes and why: --why "wider MLP: ..."')
    if predict is not None and not math.isfinite(predict):
        raise UsageError(
            f"--predict {predict} is not a number of bits per byte.",
            fix="--predict -0.004, for example, or leave it out",
        )


# ---- choosing the run


def choose_tag(settings: Settings, tag: str | None, new: bool) -> str:
    """Choose the run that a submission is for; it may be one that does not exist yet. Raises `UsageError`.

    Without a tag it is the run that somebody writes now, else the one started last, else a new one. `--backend` and
    `--preset` leave others out.
    """
    from autoresearch.core.cli.context import resolve_backend
    from autoresearch.core.cli.runs import check_name, fresh_tag, lost_run, named_run, run_rows
    from autoresearch.core.config import RUN_FOLDERS, runs_dir
    from autoresearch.core.store.git import Repository, check_tag
    from autoresearch.core.store.inbox import Inbox
    from autoresearch.core.store.liveness import is_alive

    Repository.open(settings.workspace)  # a run needs one, and its absence is the first thing to know
    if tag is not None:
        check_name(settings.workspace, tag)
        there = named_run(settings.workspace, check_tag(tag)) is not None
        begun = bool(Inbox(runs_dir(settings.workspace) / tag).waiting())
        if not there and not begun and not new:
            fix = f"leave --tag out for the current run, or start this one with --tag {tag} --new"
            raise lost_run(settings.workspace, tag, fix)
        if there and new:
            raise UsageError(
                f"there is a run {tag!r} already.", fix="leave --new out to submit to it, or choose another --tag"
            )
        return tag
    if new:
        return fresh_tag(settings.workspace, resolve_backend(settings).name)
    fitting = [run for run in run_rows(settings.workspace, settings.say) if _fits(settings, run)]
    alive = [run.tag for run in fitting if run.state == "running" and is_alive(run)]
    if len(alive) > 1:
        raise UsageError(
            f"{len(alive)} runs are going on: {', '.join(alive)}.", fix=f"name the one you mean: --tag {alive[-1]}"
        )
    if alive or fitting:
        return alive[0] if alive else fitting[-1].tag
    # Somebody else may have submitted the first file a moment ago: the run exists when its baseline is about to start.
    begun_tags = sorted(
        folder.name
        for folder in runs_dir(settings.workspace).glob(RUN_FOLDERS)
        if Inbox(folder).waiting() and not (folder / "ledger.sqlite").exists()
    )
    return begun_tags[-1] if begun_tags else fresh_tag(settings.workspace, resolve_backend(settings).name)


def _fits(settings: Settings, run: RunRow) -> bool:
    return settings.backend in ("auto", run.config["backend"]) and settings.preset in ("auto", run.config["preset"])


@contextmanager
def choosing(workspace: Path) -> Iterator[None]:
    """Hold the workspace's lock: of two first submissions at once, the second must find the run of the first."""
    from filelock import FileLock, Timeout

    from autoresearch.core.config import runs_dir

    folder = runs_dir(workspace)
    try:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "submit.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise LockedError(
            f"others have been choosing a run in {workspace} for {LOCK_SECONDS:g} s.", fix="try again"
        ) from None
    except OSError as error:
        raise LedgerError(
            f"{folder} cannot be written: {error.strerror}.", fix="check the disk's free space and permissions"
        ) from error


# ---- the train file


def fitted_source(settings: Settings, source: str, backend: str, preset: Preset, base_commit: str) -> str:
    """Write the preset's constants into a file that was written for another one, as a run does with its baseline.

    Constants that differ from those of the workspace's committed file are the author's change, and stay.
    """
    from autoresearch.core.cli.train import block_constants
    from autoresearch.core.config import train_file
    from autoresearch.core.store.git import Repository
    from autoresearch.core.trainfile.constants import write_constants

    mine = block_constants(source)
    if not mine or mine.get("PRESET") == preset.name:
        return source
    path = train_file(settings.workspace, backend).relative_to(settings.workspace).as_posix()
    try:
        theirs = block_constants(Repository.open(settings.workspace).read(base_commit, path))
    except SourceError:  # the file is not in that commit
        theirs = {}
    wanted = {
        name: value
        for name, value in {**preset.constants, "PRESET": preset.name}.items()
        if name in mine and (name == "PRESET" or mine[name] == theirs.get(name))
    }
    written = write_constants(source, wanted)
    if written != source:
        settings.say(f"unchanged constants set to those of preset {preset.name}; the file itself stays as it is")
    return written


def check_file(source: str, vocabularies: tuple[int, ...]) -> None:
    """Check what costs no device time: the file parses and offers what the contract asks for. Raises `SourceError`."""
    from autoresearch.core.trainfile.source_check import SourceFault, check_source

    try:
        check_source(source, vocabularies)
    except SourceFault as error:
        raise SourceError(
            f"nothing was submitted: {error}.", fix="mend the file (`ar brief` shows the contract), then submit again"
        ) from None


def category_of(before: str, after: str, claimed: str | None) -> str:
    """Return the category of a change: the one that is claimed where it can be true, else what the code says."""
    from autoresearch.agent.llm.taxonomy import classify

    return classify(before, after, claimed or "").category


# ---- running it


def drive(settings: Settings, tag: str, identity: str | None, overrides: RunOverrides) -> int:
    """Run the loop in this process until a submission has its verdict; return the loop's exit code.

    Measures the baseline first where there is none. Raises `LockedError` when another process writes the run, and
    what else may go wrong with a run as `ArError`.
    """
    from autoresearch.core.awake import awake
    from autoresearch.core.cli.run.resolve import Devices, choose_run, device_watch, machine_name
    from autoresearch.core.cli.run.session import listen
    from autoresearch.core.config import runs_dir
    from autoresearch.core.fleet.membership import Member
    from autoresearch.core.judge.options import make_judge
    from autoresearch.core.run.loop import Limits, Loop, Stop
    from autoresearch.core.run.run import Run
    from autoresearch.core.run.submissions import Outside
    from autoresearch.core.store.integrity import Integrity

    devices, stop = Devices(FleetOptions(), settings.say), Stop()
    tag, config, preset, prepared, device = choose_run(settings, tag, overrides, allow_dirty=False, committed=True)
    integrity = Integrity.of(config.backend, prepared, config.vocabularies, config.eval_seq_len)
    folder = runs_dir(settings.workspace) / tag
    executor = devices.executor(Member(tag, folder), config.backend, config.machine, device.kind, prepared)
    try:
        config = replace(config, machine=machine_name(config.machine, device.kind, executor))
        with (
            Run(settings.workspace, tag, config, preset, committed=True, integrity=integrity) as run,
            listen(stop, settings.say),
            awake(),
        ):
            loop = Loop(
                run,
                Outside(),
                make_judge(config.judge, config.judge_options),
                executor,
                limits=Limits(submission=identity),
                stop=stop,
                observer=_narrator(settings.say, config.train_seconds),
                device_watch=device_watch(config, executor),
            )
            return loop.go().exit_code
    finally:
        executor.close()


def _narrator(say: Callable[[str], None], train_seconds: float) -> Callable[[Event], None]:
    """Return an observer that tells a run's steps in a line each."""
    from autoresearch.core.cli.run.session import NOTED
    from autoresearch.core.events import Decided, ExperimentBegun, FirstBatch, Scoring
    from autoresearch.core.report.wording import decision_text, experiment_of, one_line

    scoring: set[tuple[int, int | None]] = set()

    def observe(event: Event) -> None:
        number = event.experiment
        if number is None:
            return
        if isinstance(event, ExperimentBegun):
            say(f"{experiment_of(number)}: {one_line(event.description, 100)}")
        elif isinstance(event, FirstBatch):
            say(f"{experiment_of(number)}, trial {event.k}: training for {train_seconds:g} s")
        elif isinstance(event, Scoring) and (number, event.k) not in scoring:
            scoring.add((number, event.k))
            say(f"{experiment_of(number)}, trial {event.k}: scoring")
        elif isinstance(event, Decided):
            say(f"{experiment_of(number)}: {decision_text(event.status, event.val_bpb, event.delta)}")
        elif (line := NOTED.get(type(event))) is not None:
            say(one_line(line.format_map(vars(event))))

    return observe


def follow(settings: Settings, tag: str, identity: str, overrides: RunOverrides, *, wait: bool) -> int:
    """Stay with a submission until it has its verdict; return the exit code of a loop that was stopped, else 0.

    A loop that runs takes it up; without `wait` this then returns at once. Where none runs, or the one that ran has
    died, this process runs it. Whoever else waits for a submission of theirs takes over after that.
    """
    from filelock import FileLock, Timeout

    from autoresearch.core.config import runs_dir
    from autoresearch.core.store.reader import LEDGER_NAME

    folder, told = runs_dir(settings.workspace) / tag, False
    # Held by the one that runs the loop for its own submission: the others wait without disturbing it.
    turn = FileLock(folder / "submit.lock", timeout=0)
    while True:
        seen = _look(folder, identity) if (folder / LEDGER_NAME).is_file() else _Seen()
        queued = seen.session is not None and seen.session.get("submission") is None  # in a loop that goes on by itself
        if seen.settled or (queued and not wait):
            return 0
        if seen.session is None:
            try:
                with turn:
                    return drive(settings, tag, identity, overrides)
            except (LockedError, Timeout):
                pass  # a loop has just begun
        if not told:
            told = True
            settings.say(f"the run {tag} is going on elsewhere; waiting for the verdict (Ctrl-C leaves it queued)")
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class _Seen:
    """A look at a run from outside."""

    settled: bool = False
    session: dict[str, Any] | None = None
    """The session of the loop that runs now; None without one."""


def _look(folder: Path, identity: str) -> _Seen:
    """Look at a submission and its run. Raises `UsageError` where it is neither waiting nor taken up."""
    from autoresearch.core.run.submissions import running_session
    from autoresearch.core.store.inbox import Inbox
    from autoresearch.core.store.reader import LedgerReader

    try:
        with LedgerReader(folder) as reader:
            waits = identity in Inbox(folder).waiting()  # looked at first: it is recorded before its file goes
            if reader.settled(identity):
                return _Seen(settled=True)
            if not waits and reader.submission(identity) is None:
                raise UsageError(f"the submission {identity} was taken back.", fix="submit it again")
            return _Seen(session=running_session(reader))
    except LedgerError as error:
        if "has no run" in error.message:
            return _Seen()  # its tables are being made
        raise


# ---- its outcome


def outcome_of(reader: LedgerReader, identity: str) -> dict[str, Any]:
    """Describe a submission as it stands now: what `ar submit --json` prints."""
    from autoresearch.core.store.inbox import Inbox

    found = reader.submission(identity)
    row: ExperimentRow | None = None
    if found is None:
        state = "waiting" if identity in Inbox(reader.folder).waiting() else "unknown"
    elif found.outcome == "accepted" and found.experiment is not None:
        row = reader.experiment(found.experiment)
        state = _state_of(row)
    else:
        state = {"repeated": "repeated", "withdrawn": "withdrawn"}.get(found.outcome, "refused")
        row = reader.experiment(found.experiment) if found.experiment is not None else None
    record = {"submission": identity, **_common(reader, row, state)}
    reason = found.reason if found is not None and row is None else None
    record["reason"] = record["reason"] or reason
    return {**record, "message": message_of(record), "next": advice_on(reader, record)}


def _state_of(row: ExperimentRow) -> str:
    return {"decided": "decided", "proposed": "queued"}.get(row.state, "running")


def experiment_outcome(reader: LedgerReader, number: int) -> dict[str, Any]:
    """Describe an experiment by its number, in the same form."""
    row = reader.experiment(number)
    record = {"submission": None, **_common(reader, row, _state_of(row))}
    return {**record, "message": message_of(record), "next": advice_on(reader, record)}


def waiting_outcome(tag: str, identity: str) -> dict[str, Any]:
    """Describe a submission for a run that nobody has begun."""
    empty = dict.fromkeys((*_NOT_DECIDED, "log", "best"))
    record = {"submission": identity, "tag": tag, "state": "waiting", "going_on": False, **empty}
    follows = f"`ar result {identity} --wait` starts the run and follows it"
    return {**record, "message": message_of(record), "next": follows}


_NOT_DECIDED = ("experiment", "status", "val_bpb", "estimate", "delta", "trials", "commit", "reason")


def _common(reader: LedgerReader, row: ExperimentRow | None, state: str) -> dict[str, Any]:
    from autoresearch.core.run.submissions import running_session
    from autoresearch.core.store.exports import decided_record, trial_folder

    run = reader.run()
    empty = dict.fromkeys(_NOT_DECIDED)
    shown = {**empty, **(decided_record(row) if row is not None else {})}
    log = None
    if row is not None and row.status in ("crash", "invalid", "timeout"):
        path = trial_folder(reader.folder, row.number, max(1, row.trials)) / "run.log"
        log = str(path) if path.is_file() else None
    return {
        "tag": run.tag,
        "state": state,
        "going_on": running_session(reader) is not None,
        **shown,
        "log": log,
        "best": best_of(reader),
    }


def best_of(reader: LedgerReader) -> dict[str, Any] | None:
    """Describe the best file: its experiment, its measured mean with half its 95 % interval, its path, in words."""
    from autoresearch.core.report.wording import best_text
    from autoresearch.core.store.exports import BEST_TRAIN
    from autoresearch.core.store.headline import headline_of

    found = headline_of(reader)
    if found is None:
        return None
    return {
        "experiment": found.experiment,
        "val_bpb": found.best.value,
        "half": found.best.half,
        "estimate": found.cautious,
        "file": str(reader.folder / BEST_TRAIN),
        "words": best_text(found),
    }


_OUTCOMES = {
    "keep": "is kept",
    "discard": "is discarded",
    "stopped": "was stopped early",
    "crash": "crashed",
    "invalid": "is invalid",
}


def message_of(record: dict[str, Any]) -> str:
    """Say in one line what became of a submission."""
    from autoresearch.core.report.wording import experiment_of, one_line

    state, number = record["state"], record["experiment"]
    reason = one_line(record["reason"] or "")
    if state in ("waiting", "queued", "running"):
        where = "waits to be taken up" if number is None else f"is {experiment_of(number)}, which "
        how = "" if number is None else "waits for a device" if state == "queued" else "is being measured"
        idle = "" if record["going_on"] else "; no loop is going on now"
        return f"submitted to {record['tag']}: it {where}{how}{idle}"
    if state == "unknown":
        return f"the run {record['tag']} knows no such submission"
    if state in ("withdrawn", "refused"):
        return f"not measured: {reason}"
    facts = [] if record["val_bpb"] is None else [f"first trial {record['val_bpb']:.6f} bpb"]
    facts += [] if record["delta"] is None else [f"difference {record['delta']:+.6f}"]
    told = f"{experiment_of(number)} {_OUTCOMES.get(record['status'], 'ended as ' + str(record['status']))}"
    told += f" ({'; '.join(facts)}): {reason}" if facts else f": {reason}"
    return f"this source was tried before: {told}" if state == "repeated" else told


def advice_on(reader: LedgerReader, record: dict[str, Any]) -> str:
    """Say the next thing worth knowing after a submission."""
    state, status, best = record["state"], record["status"], record["best"]
    if state in ("waiting", "queued", "running"):
        name = record["submission"] or record["experiment"]
        does = "follows it to its verdict" if record["going_on"] else "goes on with it here"
        return f"`ar result {name} --wait` {does}"
    if best is None:
        return "`ar status` says how the run stands"
    standing = f"{best['words']}: {best['file']}"
    if status == "keep" and record["experiment"] == best["experiment"]:
        return f"make the next change to a copy of the best file; {standing}"
    if state in ("withdrawn", "refused"):
        return f"make the change again in a copy of the best file; {standing}"
    if status in ("crash", "timeout"):
        log = f" (log: {record['log']})" if record["log"] else ""
        return f"mend it and submit it again{log}; {standing}"
    if status == "invalid":
        return f"`ar brief` shows the rules that it breaks; {standing}"
    noise = noise_of(reader).get("seed")
    seeds = "" if noise is None else f"; two seeds of one file differ by about {noise:.4f} bpb"
    return f"{standing}{seeds}"


def noise_of(reader: LedgerReader) -> dict[str, float | None]:
    """Return the run's noise as the judge knows it, in bits per byte; None where it is not known yet.

    "seed" is the standard deviation between seeds of one file, "paired" that of a difference at equal seeds.
    """
    facts = reader.noise_facts()
    return {
        name: float(facts[key]) if isinstance(facts.get(key), int | float) else None
        for name, key in (("seed", "sigma"), ("paired", "paired"))
    }


def exit_code_of(record: dict[str, Any]) -> int:
    """Return the exit code for an outcome: 1 where the file could not be measured, else 0."""
    failed = record["state"] in ("withdrawn", "refused", "unknown")
    judged = ("keep", "discard", "stopped")  # a trial without prospects is ended early, and says enough
    return int(failed or (record["state"] == "decided" and record["status"] not in judged))
