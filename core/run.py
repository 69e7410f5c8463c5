"""One run: what is proposed, tried and decided in it, each step on disk before it is acted on."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from autoresearch.core.errors import SourceError
from autoresearch.core.judge.bar import audit_bar
from autoresearch.core.judge.decision import Decision, Demotion, Evidence, RunTrial
from autoresearch.core.judge.evidence import finished_trials, gather_evidence
from autoresearch.core.proposal import Attempt, History, InFlight, Proposal
from autoresearch.core.runfiles import RunFiles
from autoresearch.core.store.exports import export_results, trial_folder
from autoresearch.core.store.fingerprint import fingerprint
from autoresearch.core.store.losses import loss_curve
from autoresearch.core.store.profiles import last_profile
from autoresearch.core.store.rows import ExperimentRow, TrialRow
from autoresearch.core.store.source import experiment_ref
from autoresearch.core.trial.compiled import worth_carrying
from autoresearch.core.trial.result import Budget, Carried, TrialRequest


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
