"""One run: what is proposed, tried and decided in it, each step on disk before it is acted on.

A run's files and commits: opened, repaired after a crash, and written from the ledger.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoresearch.core.config import Preset, RunConfig, runs_dir, train_file
from autoresearch.core.errors import PrerequisiteError, SourceError
from autoresearch.core.findings.offered import OfferedChanges
from autoresearch.core.findings.peers import PeerRuns
from autoresearch.core.judge.decision import Decision, Demotion, Evidence, RunTrial
from autoresearch.core.proposal import Attempt, History, InFlight, Proposal
from autoresearch.core.run.evidence import audit_bar, finished_trials, gather_evidence
from autoresearch.core.store.attempts import attempt_of
from autoresearch.core.store.exports import append_results, drop_weights, export_best, export_results, trial_folder
from autoresearch.core.store.git import Repository, branch_name, check_tag, experiment_ref
from autoresearch.core.store.integrity import Integrity
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import Texts
from autoresearch.core.store.rows import ExperimentRow, TrialRow
from autoresearch.core.store.trial_notes import last_profile, loss_curve
from autoresearch.core.trainfile.constants import write_preset
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trial.compile_cache import worth_carrying
from autoresearch.core.trial.request import Budget, Carried, TrialRequest


class RunFiles:
    """What a run is on disk: ledger, commits and refs, and the files that follow from the ledger.

    `attempts` holds every decided experiment as researchers see it; sources are read from the ledger when asked for.
    """

    def __init__(
        self,
        workspace: Path,
        tag: str,
        config: RunConfig,
        preset: Preset,
        *,
        allow_dirty: bool = False,
        integrity: Integrity | None = None,
        peers: PeerRuns | None = None,
    ) -> None:
        """Start the run, or take it up where it stopped. Starting needs a train file without uncommitted changes.

        `integrity` watches the files that its verdicts hang on; None watches nothing. `peers` are the runs whose
        findings are offered to it.
        """
        self.tag, self.config, self._preset, self._allow_dirty = check_tag(tag), config, preset, allow_dirty
        self.workspace = workspace
        self._integrity = integrity
        self._untidy: list[ExperimentRow] = []
        self._spent: list[int] = []
        self.repository = Repository.open(workspace)
        self.folder = runs_dir(workspace) / tag
        self._path = train_file(workspace, config.backend).relative_to(workspace).as_posix()
        if not (self.folder / "ledger.sqlite").is_file():
            self._check_start()
        self.ledger = Ledger(self.folder)
        self._texts = Texts(self.folder)
        try:
            self._open()
            self.findings = None if peers is None else OfferedChanges(self.ledger, peers)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> RunFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._texts.close()
        self.ledger.close()

    def _check_start(self) -> None:
        branch = branch_name(self.tag)
        if self.repository.ref(f"refs/heads/{branch}") or self.repository.refs(self.tag):
            fix = f"choose another --tag, or delete the branch {branch} and its refs/autoresearch/{self.tag}"
            raise SourceError(f"git has experiments of an earlier run {self.tag!r}, but its ledger is gone.", fix=fix)
        self.program()
        self._starting_source()

    def _open(self) -> None:
        if not self.ledger.created:
            self.ledger.create(self.tag, self.config.plain(), self.repository.head())
        else:
            self.config.check_same(dict(self.ledger.run().config), self.tag)
            self.ledger.heartbeat()
        if self._integrity is not None:
            self._integrity.begin(self.ledger)
        if self.repository.current_branch() == branch_name(self.tag):
            message = f"the branch {branch_name(self.tag)} is checked out, and the run moves it."
            raise PrerequisiteError(message, fix="git switch - (or git switch --detach)")
        self._ensure_baseline()
        self.attempts = [self._attempt(self.ledger.experiment(number)) for number in self.ledger.decisions()]
        self._ensure_refs()
        export_results(self.ledger)
        self._advance()
        drop_weights(self.ledger)

    def _starting_source(self) -> str:
        return starting_source(self.repository, self.config.backend, self._preset, allow_dirty=self._allow_dirty)

    def _ensure_baseline(self) -> None:
        """Experiment 0, unless it is there. One that failed starts again from the train file as it is now."""
        baseline = self.ledger.experiment(0) if self.ledger.next_number() else None
        if baseline is not None and (baseline.state != "decided" or baseline.status == "keep"):
            return
        source, created = self._starting_source(), time.time()
        commit = self.repository.commit(
            self._path, source, parent=self.repository.head(), message=f"{self.tag}: baseline", date=created
        )
        if baseline is not None:
            self.ledger.restart_baseline(source, commit=commit, fingerprint=fingerprint(source), created=created)
        else:
            proposal = Proposal(source=source, hypothesis="baseline", category="baseline")
            self._record(0, proposal, parent=0, commit=commit, created=created, program=self.program())

    def program(self) -> str:
        """program.md as it is now."""
        path = self.workspace / "program.md"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fix = "make a workspace with `ar init DIR`, or name one with --workspace"
            raise PrerequisiteError(f"there is no readable {path}: {error}.", fix=fix) from error

    def _commit(self, source: str, parent: int, message: str, date: float) -> str:
        commit = str(self.ledger.experiment(parent).commit)
        return self.repository.commit(self._path, source, parent=commit, message=message, date=date)

    def _record(
        self, number: int, proposal: Proposal, *, parent: int, commit: str, created: float, program: str
    ) -> None:
        mark = fingerprint(proposal.source)
        self.ledger.propose(
            number, proposal, parent=parent, commit=commit, fingerprint=mark, program=program, created=created
        )

    def tidy(self) -> None:
        """Bring table, branch, best file and disk in line with the decisions since the last call.

        Apart from `decide`, so that the next trial need not wait for it; after a crash, opening the run does the same.
        """
        if not self._untidy:
            return
        append_results(self.ledger, self._untidy)
        if any(row.status == "keep" for row in self._untidy):
            self._advance()
        for number in self._spent:
            drop_weights(self.ledger, number)
        self._untidy, self._spent = [], []

    def _advance(self) -> None:
        """Branch and best file to the incumbent. After a crash the branch may stand at another experiment."""
        best = self.ledger.incumbent()
        if best is None:
            return
        name = f"refs/heads/{branch_name(self.tag)}"
        there = self.repository.ref(name)
        if there != best.commit:
            if there is not None and not self.ledger.has_commit(there):
                fix = f"git branch -f {branch_name(self.tag)} {best.commit} (this drops what was put there)"
                raise SourceError(f"the branch {branch_name(self.tag)} was moved by somebody else.", fix=fix)
            self.repository.move_ref(name, str(best.commit), expected=there, reason=f"keep {best.number}")
        export_best(self.ledger)

    def incumbent_number(self) -> int:
        """The best experiment so far; the baseline while there is none."""
        number = self.ledger.run().incumbent
        return 0 if number is None else number

    def _attempt(self, row: ExperimentRow) -> Attempt:
        return attempt_of(row, partial(self._texts.read, row.source_sha256))

    def _ensure_refs(self) -> None:
        """What a crash left undone: a ref for everything in flight, and none for what was withdrawn."""
        for row in self.ledger.undecided():
            self._ensure_ref(row)
        known = {row.number for row in self.ledger.experiments()}
        for number in self.repository.refs(self.tag).keys() - known:
            self.repository.drop_ref(experiment_ref(self.tag, number))

    def _ensure_ref(self, row: ExperimentRow) -> None:
        name = experiment_ref(self.tag, row.number)
        there = self.repository.ref(name)
        if there != row.commit:
            self.repository.move_ref(name, str(row.commit), expected=there, reason="autoresearch: experiment")


def starting_source(repository: Repository, backend: str, preset: Preset, *, allow_dirty: bool) -> str:
    """The workspace's train file with the preset's constants. Raises `PrerequisiteError` when it is unfit."""
    file = train_file(repository.workspace, backend)
    path = file.relative_to(repository.workspace).as_posix()
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "make a workspace with `ar init DIR`, or name one with --workspace"
        raise PrerequisiteError(f"there is no readable train file {file}: {error}.", fix=fix) from error
    if not allow_dirty and repository.changed(path):
        fix = f"git add {path} && git commit, or --allow-dirty to start from it as it is"
        raise PrerequisiteError(f"{file} has changes that are not committed.", fix=fix)
    return write_preset(source, preset)


class Run(RunFiles):
    """A run that this process writes."""

    def __enter__(self) -> Run:
        return self

    def history(self, program: str, thinking: int = 0) -> History:
        """What a researcher may know now. `thinking` is how many other proposals are being made."""
        attempts = self.attempts or [self._first_look()]
        incumbent = self.incumbent_number()
        in_flight = tuple(self._in_flight(row) for row in self.ledger.undecided() if row.number)
        return History(
            program=program,
            backend=self.config.backend,
            device=self.config.device,
            preset=self.config.preset,
            budget_seconds=self.config.train_seconds,
            seed=self.config.seed,
            vocabularies=self.config.vocabularies,
            incumbent=self._looked_at(next(one for one in reversed(attempts) if one.experiment == incumbent)),
            attempts=tuple(attempts),
            in_flight=in_flight,
            thinking=thinking,
            findings=self.findings.look(self.config.device, self.attempts, in_flight) if self.findings else (),
        )

    def _looked_at(self, attempt: Attempt) -> Attempt:
        """With its first trial's training loss and the last profile, for whoever wants to improve on it."""
        curve = loss_curve(trial_folder(self.folder, attempt.experiment, 1), self.config.train_seconds)
        profile = last_profile(self.folder.parent, self.config.backend, self.config.preset, attempt.source)
        told = {name: text for name, text in (("loss_curve", curve), ("profile", profile)) if text}
        return replace(attempt, metrics={**attempt.metrics, **told})

    def propose(self, proposal: Proposal, program: str, parent: int | None = None) -> ExperimentRow:
        """Record a proposal as the next experiment: its commit, its row, its ref.

        `parent` is the experiment whose source it edits, the incumbent where it is None.
        """
        number, created = self.ledger.next_number(), time.time()
        parent = self.incumbent_number() if parent is None else parent
        commit = self._commit(proposal.source, parent, _message(proposal), created)
        self._record(number, proposal, parent=parent, commit=commit, created=created, program=program)
        row = self.ledger.experiment(number)
        self._ensure_ref(row)
        return row

    def rebase(self, row: ExperimentRow, source: str, parent: int) -> ExperimentRow:
        """A proposal that waits becomes an edit of another experiment: its commit, its row, its ref."""
        proposal = Proposal(
            source, row.hypothesis, row.category, row.predicted_delta, researcher=row.researcher, origin=row.origin
        )
        commit = self._commit(source, parent, _message(proposal), row.created)
        mark = fingerprint(source)
        self.ledger.rebase(row.number, source, parent=parent, commit=commit, fingerprint=mark)
        moved = self.ledger.experiment(row.number)
        self._ensure_ref(moved)
        return moved

    def withdraw(self, row: ExperimentRow, reason: str) -> None:
        """A proposal that waits becomes no experiment."""
        self.ledger.withdraw(row.number, reason)
        self.repository.drop_ref(experiment_ref(self.tag, row.number))

    def evidence(self, row: ExperimentRow) -> Evidence:
        """What the judge looks at."""
        return gather_evidence(self.ledger, row, self.config.seed, self.config.machine)

    def start_trial(self, row: ExperimentRow, trial: RunTrial) -> tuple[TrialRow, TrialRequest]:
        """Record that a trial starts, and say what is asked of it."""
        subjects = {"candidate": row.number, "incumbent": self.incumbent_number() if row.number else 0, "baseline": 0}
        started = self.ledger.start_trial(row.number, trial, subject=subjects[trial.role])
        folder = trial_folder(self.folder, started.experiment, started.k)
        if folder.exists():
            shutil.rmtree(folder)  # what an earlier start of this trial left
        request = TrialRequest(
            source=self.ledger.text(self.ledger.experiment(started.subject).source_sha256),
            backend=self.config.backend,
            preset=self.config.preset,
            prepared=Path(self.config.prepared),
            eval_seq_len=self.config.eval_seq_len,
            score_rows=self.config.score_rows,
            folder=folder,
            seed=trial.seed,
            budget=Budget(self.config.train_seconds, self.config.startup_seconds),
            tolerances=self.folder / "tolerances.json",
            calibrate=started.subject == 0,
            audit_below=audit_bar(self.ledger, row.number) if trial.role == "candidate" and row.number else None,
            carried=self._carried(),
        )
        return started, request

    def _carried(self) -> Carried | None:
        """The incumbent, where what it compiles is worth giving to the next trial."""
        number, folder = self.incumbent_number(), self.folder / "compiled"
        if not worth_carrying(folder, (trial.result for trial in self.ended_trials(number))):
            return None
        return Carried(self.ledger.text(self.ledger.experiment(number).source_sha256), folder)

    def decide(self, row: ExperimentRow, decision: Decision) -> ExperimentRow:
        """Record the end of an experiment. What is written from the ledger follows with `tidy`.

        Raises `IntegrityError` when a file that the verdict hangs on has changed meanwhile.
        """
        if self._integrity is not None:
            self._integrity.check()
        before = self.ledger.run().incumbent
        self.ledger.decide(row.number, decision, finished_trials(self.ledger, row, self.config.machine)[0])
        decided = self.ledger.experiment(row.number)
        self.attempts.append(self._attempt(decided))
        self._untidy.append(decided)
        self._spent.append(before if decided.status == "keep" and before is not None else row.number)
        return decided

    def demote(self, demotion: Demotion) -> None:
        """Record that the incumbent does not hold; branch, table and best file go back to the keep before it."""
        before = self.ledger.keep_before(demotion.experiment)
        if before is None:
            raise SourceError(f"experiment {demotion.experiment} is the baseline, which cannot be demoted.")
        self.ledger.demote(demotion, before.number)
        row = self.ledger.experiment(demotion.experiment)
        self.attempts = [self._attempt(row) if one.experiment == row.number else one for one in self.attempts]
        self.tidy()
        export_results(self.ledger)
        self._advance()

    def _first_look(self) -> Attempt:
        """The baseline while it is still measured, by its first trial."""
        row = self.ledger.experiment(0)
        first = finished_trials(self.ledger, row)[0]
        reason = "the baseline, still being measured"
        return replace(self._attempt(row), status="keep", reason=reason, val_bpb=first.val_bpb, estimate=first.val_bpb)

    def baseline_runs(self) -> bool:
        """Whether the baseline is decided, or has had a trial that went well."""
        if self.attempts:
            return True
        return any(trial.status == "ok" for trial in finished_trials(self.ledger, self.ledger.experiment(0)))

    def _in_flight(self, row: ExperimentRow) -> InFlight:
        source, names = self.ledger.text(row.source_sha256), ("hypothesis", "category", "researcher", "parent")
        told = {name: getattr(row, name) for name in (*names, "predicted_delta", "parameters", "origin")}
        return InFlight(experiment=row.number, source=source, **told)

    def ended_trials(self, subject: int) -> list[TrialRow]:
        """Of an experiment's source on this machine, whoever asked for them."""
        return finished_trials(self.ledger, self.ledger.experiment(subject), self.config.machine)


def _message(proposal: Proposal) -> str:
    """The commit's message: the hypothesis in one line, then what is known of it."""
    subject = " ".join(proposal.hypothesis.split()) or "no description"
    lines = [f"Category: {proposal.category}", f"Researcher: {proposal.researcher}"]
    if proposal.predicted_delta is not None:
        lines.append(f"Predicted-delta: {proposal.predicted_delta:+.6f}")
    if proposal.origin is not None:
        lines.append(f"Origin: {proposal.origin} on {' '.join(proposal.origin.device.split())}")
    return f"{subject}\n\n" + "\n".join(lines) + "\n"
