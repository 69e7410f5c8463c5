"""One run that this process writes: opened, repaired after a crash, and taken from proposal to verdict.

Every step is in the ledger before it is acted on. Commits, branch, table and best file follow from the ledger.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from autoresearch.core.config import Preset, RunConfig, runs_dir, train_file
from autoresearch.core.errors import PrerequisiteError, SourceError
from autoresearch.core.files import remove_folder
from autoresearch.core.findings.offered import OfferedChanges
from autoresearch.core.findings.peers import PeerRuns
from autoresearch.core.judge.decision import Decision, Demotion, Evidence, RunTrial, Side
from autoresearch.core.judge.racing import idle_seed
from autoresearch.core.proposal import Attempt, History, Proposal
from autoresearch.core.run.evidence import audit_threshold, finished_trials, gather_evidence, side_of
from autoresearch.core.run.history import attempt_of, history_of, in_flight_of, with_notes, withdrawn_of
from autoresearch.core.run.lost_commits import check_needed, make_again
from autoresearch.core.run.measurements import Measurements
from autoresearch.core.run.short_trials import SCREEN, stand_in
from autoresearch.core.run.stop_rules import stop_rule
from autoresearch.core.store.exports import append_results, export_best, export_results, trial_folder
from autoresearch.core.store.git import Repository, branch_name, check_tag, experiment_ref, lost_ref
from autoresearch.core.store.integrity import Integrity
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import Texts
from autoresearch.core.store.remarks import marks_of
from autoresearch.core.store.rows import ExperimentRow, TrialRow
from autoresearch.core.store.weights import drop_spare_weights
from autoresearch.core.textfile import read_text
from autoresearch.core.trainfile.constants import write_preset
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trial.compile_cache import worth_carrying
from autoresearch.core.trial.request import Carried, TrialRequest, TrialTerms


class Run:
    """A run: its ledger, its commits and refs, and the files that follow from the ledger."""

    def __init__(
        self,
        workspace: Path,
        tag: str,
        config: RunConfig,
        preset: Preset,
        *,
        allow_dirty: bool = False,
        committed: bool = False,
        integrity: Integrity | None = None,
        peers: PeerRuns | None = None,
    ) -> None:
        """Start the run, or resume it where it stopped. Starting needs a train file without uncommitted changes.

        With `committed` the run starts from the train file as HEAD has it, whatever has become of it since.
        `integrity` watches the files that verdicts depend on; None watches nothing. `peers` are the peer runs whose
        findings are offered to it.
        """
        self.tag, self.config, self._preset = check_tag(tag), config, preset
        self._allow_dirty, self._committed = allow_dirty, committed
        self.workspace = workspace
        self._integrity = integrity
        self.attempts: list[Attempt] = []
        """Every decided experiment as researchers see it, in the order of the decisions."""
        self._untidy: list[ExperimentRow] = []  # decided, and not in results.tsv yet
        self._spent: list[int] = []  # experiments whose weights nobody needs any more
        self.lost: list[int] = []
        """Experiments that git has and the ledger has not, because it is an older copy or was damaged."""
        self.repository = Repository.open(workspace)
        self.repository.check_branch(tag)  # before a baseline is trained for minutes
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

    def __enter__(self) -> Run:
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
        drop_spare_weights(self.ledger)

    def _starting_source(self) -> str:
        if self._committed:
            return committed_source(self.repository, self.config.backend, self._preset)
        return starting_source(self.repository, self.config.backend, self._preset, allow_dirty=self._allow_dirty)

    def _ensure_baseline(self) -> None:
        """Make experiment 0, unless it is there. A failed one starts again from the train file as it is now."""
        baseline = self.ledger.experiment(0) if self.ledger.next_number() else None
        if baseline is not None and (baseline.state != "decided" or baseline.status == "keep"):
            return
        source, created = self._starting_source(), self.ledger.now()
        commit = self.repository.commit(
            self._path, source, parent=self.repository.head(), message=self._baseline_message(), date=created
        )
        if baseline is not None:
            self.ledger.restart_baseline(source, commit=commit, fingerprint=fingerprint(source), created=created)
        else:
            proposal = Proposal(source=source, hypothesis="baseline", category="baseline")
            self._record(0, proposal, parent=0, commit=commit, created=created, program=self.program())

    def _ensure_refs(self) -> None:
        """Finish what a crash left undone, and bring back what a copy without git's refs lacks.

        Every experiment gets its ref, and withdrawn ones get none.
        """
        rows = list(self.ledger.experiments())
        lost = make_again(self.repository, rows, self._commit_again, self.ledger.run().base_commit)
        undecided = self.ledger.undecided()
        check_needed(self.tag, lost, [self.incumbent_number(), *(row.number for row in undecided)])
        rebased = self.ledger.numbers_of("rebased")
        for row in undecided:
            self._ensure_ref(row, new=row.number not in rebased)
        there, known = self.repository.refs(self.tag), {row.number: str(row.commit) for row in rows}
        self.repository.create_refs(
            {experiment_ref(self.tag, number): known[number] for number in known.keys() - there.keys() - lost}
        )
        withdrawn = self.ledger.numbers_of("withdrawn")
        for number in (there.keys() - known.keys()).intersection(withdrawn):
            self.repository.drop_ref(experiment_ref(self.tag, number))
        # Others that the ledger does not know are experiments that it has lost: they stay, until their number comes
        # again (see `_ensure_ref`).
        self.lost = sorted(there.keys() - known.keys() - set(withdrawn))

    def incumbent_number(self) -> int:
        """Return the number of the best experiment so far; 0, the baseline, while none is decided."""
        number = self.ledger.run().incumbent
        return 0 if number is None else number

    def ended_trials(self, subject: int) -> list[TrialRow]:
        """Return the ended trials of an experiment's source on this machine, whichever experiment asked for them."""
        return finished_trials(self.ledger, self.ledger.experiment(subject), self.config.machine)

    def program(self) -> str:
        """Read program.md as it is now. Raises `PrerequisiteError`."""
        return read_program(self.workspace)

    def history(self, program: str, thinking: int = 0, base: ExperimentRow | None = None) -> History:
        """Return what a researcher may know now, once the baseline is decided.

        `thinking` is the number of other proposals being made. `base` is a stack without a verdict, whose source is
        edited as if it was the incumbent; the figures stay the incumbent's.
        """
        attempts, best, config = self.attempts, self.incumbent_number(), self.config.plain()
        incumbent = next(one for one in reversed(attempts) if one.experiment == best)
        undecided = [row for row in self.ledger.undecided() if row.number]
        in_flight = tuple(in_flight_of(row, self.ledger.text(row.source_sha256)) for row in undecided)
        findings = self.findings.look(self.config.device, self.attempts, in_flight) if self.findings else ()
        incumbent = with_notes(incumbent, self.ledger, attempts)
        measured = Measurements(self.ledger, self.config.machine)
        marks, lost = marks_of(self.ledger), withdrawn_of(self.ledger.events("withdrawn"), len(attempts))
        told = history_of(config, program, attempts, incumbent, findings, in_flight, thinking, measured, marks, lost)
        return told if base is None else replace(told, incumbent=self._as_incumbent(base, told.incumbent))

    def _as_incumbent(self, base: ExperimentRow, incumbent: Attempt) -> Attempt:
        return replace(
            incumbent,
            experiment=base.number,
            source=self.ledger.text(base.source_sha256),
            hypothesis=base.hypothesis,
            category=base.category,
            researcher=base.researcher,
            reason="not measured yet; each of its parts looked better",
            parent=base.parent,
            parameters=base.parameters,
        )

    def _attempt(self, row: ExperimentRow) -> Attempt:
        return attempt_of(row, partial(self._texts.read, row.source_sha256))

    def propose(self, proposal: Proposal, program: str, parent: int | None = None) -> ExperimentRow:
        """Record a proposal as the next experiment: its commit, its row, its ref.

        `parent` is the experiment whose source it edits, the incumbent where it is None.
        """
        number, created = self.ledger.next_number(), self.ledger.now()
        parent = self.incumbent_number() if parent is None else parent
        # Commit, then ledger, then ref. After a crash between any two of them the commit is unreachable or its ref is
        # made again (`_ensure_refs`); no row ever names a commit that does not exist.
        commit = self._commit(proposal.source, parent, _message(proposal), created)
        self._record(number, proposal, parent=parent, commit=commit, created=created, program=program)
        row = self.ledger.experiment(number)
        self._ensure_ref(row, new=True)
        return row

    def rebase(self, row: ExperimentRow, source: str, parent: int) -> ExperimentRow:
        """Make a waiting proposal an edit of another experiment: its commit, its row, its ref."""
        commit = self._commit(source, parent, _message(_proposal_of(row, source)), row.created)
        mark = fingerprint(source)
        self.ledger.rebase(row.number, source, parent=parent, commit=commit, fingerprint=mark)
        moved = self.ledger.experiment(row.number)
        self._ensure_ref(moved)
        return moved

    def withdraw(self, row: ExperimentRow, reason: str) -> None:
        """Drop a waiting proposal: it becomes no experiment."""
        self.ledger.withdraw(row.number, reason)
        self.repository.drop_ref(experiment_ref(self.tag, row.number))

    def _record(
        self, number: int, proposal: Proposal, *, parent: int, commit: str, created: float, program: str
    ) -> None:
        mark = fingerprint(proposal.source)
        self.ledger.propose(
            number, proposal, parent=parent, commit=commit, fingerprint=mark, program=program, created=created
        )

    def _commit(self, source: str, parent: int, message: str, date: float) -> str:
        commit = str(self.ledger.experiment(parent).commit)
        return self.repository.commit(self._path, source, parent=commit, message=message, date=date)

    def _commit_again(self, row: ExperimentRow, parent: str) -> str:
        message = _message(_proposal_of(row, "")) if row.number else self._baseline_message()
        source = self.ledger.text(row.source_sha256)
        return self.repository.commit(self._path, source, parent=parent, message=message, date=row.created)

    def _baseline_message(self) -> str:
        return f"{self.tag}: baseline"

    def _ensure_ref(self, row: ExperimentRow, *, new: bool = False) -> None:
        """Set an experiment's ref. What has the ref of a new one already is an experiment that the ledger has lost."""
        name = experiment_ref(self.tag, row.number)
        there = self.repository.ref(name)
        if there == row.commit:
            return
        if new and there is not None:
            aside = lost_ref(self.tag, row.number, there)
            self.repository.move_ref(aside, there, expected=self.repository.ref(aside), reason="autoresearch: lost")
        self.repository.move_ref(name, str(row.commit), expected=there, reason="autoresearch: experiment")

    def evidence(self, row: ExperimentRow, against: int | None = None) -> Evidence:
        """Collect what the judge decides on; `against` is an experiment that takes the incumbent's place."""
        return gather_evidence(self.ledger, row, self.config.seed, self.config.machine, against)

    def incumbent_side(self) -> Side:
        """Return the best file and everything measured of it on this machine."""
        return side_of(self.ledger, self.ledger.experiment(self.incumbent_number()), self.config.machine)

    def start_trial(
        self, row: ExperimentRow, trial: RunTrial, against: int | None = None
    ) -> tuple[TrialRow, TrialRequest]:
        """Record that a trial starts, and return its row and the request for it; `against` as in `evidence`."""
        best = self.incumbent_number() if against is None else against
        subjects = {"candidate": row.number, "incumbent": best if row.number else 0, "baseline": 0}
        started = self.ledger.start_trial(row.number, trial, subject=subjects[trial.role])
        request = replace(
            self._request(started, trial),
            audit_below=self._audit_below(row, trial),
            # One trial's weights are enough: the first that ends well.
            keep_weights=started.subject == started.experiment and not self._has_score(row),
        )
        return started, request

    def start_short(self, row: ExperimentRow, trial: RunTrial) -> tuple[TrialRow, TrialRequest]:
        """Record that a short trial starts; return it in the form of a trial without a row, and its request.

        It is not audited, has no stop rule and leaves no weights: it can only let its source go.
        """
        if trial.short is None or trial.subject is None:
            raise ValueError("a short trial needs its seconds and what it is compared with")
        self.ledger.start_short(row.number)
        subject = row.number if trial.role == "candidate" else trial.subject
        started = TrialRow(
            row.number, 0, trial.role, subject, trial.seed, 1, self.ledger.now(), None, None, None, MappingProxyType({})
        )
        request = self._request(started, trial)
        budget = replace(request.budget, train_seconds=trial.short)
        return started, replace(request, budget=budget, audit=False, calibrate=False)

    def start_repeat(self) -> tuple[TrialRow, TrialRequest]:
        """Record that an idle device measures the incumbent once more, and return the trial's row and its request.

        The trial belongs to the next experiment, as if that had asked for it.
        """
        number = self.ledger.next_number()
        before = sum(one.status is not None for one in self.ledger.trials(experiment=number))
        trial = RunTrial("incumbent", idle_seed(self.config.seed, number, before))
        started = self.ledger.start_repeat(number, trial, subject=self.incumbent_number())
        return started, self._request(started, trial)

    def _request(self, started: TrialRow, trial: RunTrial) -> TrialRequest:
        folder = trial_folder(self.folder, started.experiment, started.k)
        if folder.exists():
            remove_folder(folder)  # left by an earlier start of this trial
        terms = TrialTerms.of_config(self.config.plain())
        return replace(
            terms.request(self.ledger.source(started.subject), folder, trial.seed),
            tolerances=self.folder / "tolerances.json",
            calibrate=started.subject == 0,
            carried=self.carried(),
            baseline=self.ledger.source(0) if started.subject else None,
            stop=stop_rule(self.ledger, trial, self.config.machine),
        )

    def _has_score(self, row: ExperimentRow) -> bool:
        return any(one.subject == row.number for one in finished_trials(self.ledger, row, "") if one.status == "ok")

    def _audit_below(self, row: ExperimentRow, trial: RunTrial) -> float | None:
        """Return the val_bpb from which on a candidate's trial is not audited; None audits it in any case."""
        if trial.role != "candidate" or not row.number:
            return None
        return audit_threshold(self.ledger, row.number, trial.seed)

    def carried(self) -> Carried | None:
        """Return the incumbent and its compiled code, where the next trial would save time with it."""
        number, folder = self.incumbent_number(), self.folder / "compiled"
        if not worth_carrying(folder, (trial.result for trial in self.ended_trials(number))):
            return None
        return Carried(self.ledger.source(number), folder)

    def decide(self, row: ExperimentRow, decision: Decision) -> ExperimentRow:
        """Record the end of an experiment. The files that follow from the ledger are written by `tidy`.

        Raises `IntegrityError` when a file that verdicts depend on has changed meanwhile.
        """
        if self._integrity is not None:
            self._integrity.check()
        # Read before the decision, which may replace it: the weights of the file that is no longer the best are not
        # needed any more.
        before = self.ledger.run().incumbent
        # A stack's verdict may decide a part that was measured before the run moved to this machine.
        ended = finished_trials(self.ledger, row, self.config.machine) or finished_trials(self.ledger, row)
        first = stand_in(self.ledger, row) if SCREEN in decision.facts else ended[0]
        self.ledger.decide(row.number, decision, first)
        decided = self.ledger.experiment(row.number)
        self.attempts.append(self._attempt(decided))
        self._untidy.append(decided)
        self._spent.append(before if decided.status == "keep" and before is not None else row.number)
        return decided

    def demote(self, demotion: Demotion) -> None:
        """Record that the incumbent does not hold; branch, table and best file go back to the one before it."""
        before = self.ledger.keep_before(demotion.experiment)
        if before is None:
            raise SourceError(f"experiment {demotion.experiment} is the baseline, which cannot be demoted.")
        self.ledger.demote(demotion, before.number)
        row = self.ledger.experiment(demotion.experiment)
        self.attempts = [self._attempt(row) if one.experiment == row.number else one for one in self.attempts]
        self.tidy()
        export_results(self.ledger)
        self._advance()

    def tidy(self) -> None:
        """Bring table, branch, best file and disk in line with the decisions since the last call.

        Separate from `decide`, so that the next trial starts first. After a crash, opening the run does the same.
        """
        if not self._untidy:
            return
        append_results(self.ledger, self._untidy)
        if any(row.status == "keep" for row in self._untidy):
            self._advance()
        for number in self._spent:
            drop_spare_weights(self.ledger, number)
        self._untidy, self._spent = [], []

    def _advance(self) -> None:
        """Move branch and best file to the incumbent. After a crash the branch may stand at another experiment."""
        best = self.ledger.incumbent()
        if best is None:
            return
        name = f"refs/heads/{branch_name(self.tag)}"
        there = self.repository.ref(name)
        if there != best.commit:
            # A person may have committed on the run's branch. Moving it would lose that commit, so the run stops and
            # says how to go on.
            if there is not None and not self._is_experiment(there):
                fix = f"git branch -f {branch_name(self.tag)} {best.commit} (this drops what was put there)"
                raise SourceError(f"the branch {branch_name(self.tag)} was moved by somebody else.", fix=fix)
            self.repository.move_ref(name, str(best.commit), expected=there, reason=f"keep {best.number}")
        export_best(self.ledger)

    def _is_experiment(self, commit: str) -> bool:
        """Tell whether a commit is an experiment of this run; one that a damaged ledger has lost still has its ref."""
        return self.ledger.has_commit(commit) or commit in self.repository.refs(self.tag).values()


def read_program(workspace: Path) -> str:
    """Read a workspace's program.md as it is now. Raises `PrerequisiteError`."""
    path = workspace / "program.md"
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        fix = "make a workspace with `ar init DIR`, or name one with --workspace"
        raise PrerequisiteError(f"there is no readable {path}: {error}.", fix=fix) from error


def starting_source(repository: Repository, backend: str, preset: Preset, *, allow_dirty: bool) -> str:
    """Return the workspace's train file with the preset's constants. Raises `PrerequisiteError` when it is unfit."""
    file = train_file(repository.workspace, backend)
    path = file.relative_to(repository.workspace).as_posix()
    try:
        source = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        fix = "make a workspace with `ar init DIR`, or name one with --workspace"
        raise PrerequisiteError(f"there is no readable train file {file}: {error}.", fix=fix) from error
    if not allow_dirty and repository.changed(path):
        fix = f"git add {path} && git commit, or --allow-dirty to start from it as it is"
        raise PrerequisiteError(f"{file} has changes that are not committed.", fix=fix)
    return write_preset(source, preset)


def committed_source(repository: Repository, backend: str, preset: Preset) -> str:
    """Return HEAD's train file with the preset's constants. Raises `PrerequisiteError` when there is none."""
    path = train_file(repository.workspace, backend).relative_to(repository.workspace).as_posix()
    try:
        source = repository.read("HEAD", path)
    except SourceError as error:
        fix = f"git add {path} && git commit, or make a workspace with `ar init DIR`"
        raise PrerequisiteError(f"{repository.workspace} has no committed {path}.", fix=fix) from error
    return write_preset(source, preset)


def _proposal_of(row: ExperimentRow, source: str) -> Proposal:
    """Return the proposal that an experiment was, with another source."""
    return Proposal(
        source, row.hypothesis, row.category, row.predicted_delta, researcher=row.researcher, origin=row.origin
    )


def _message(proposal: Proposal) -> str:
    """Write the commit's message: the hypothesis in one line, then category, researcher and prediction."""
    subject = " ".join(proposal.hypothesis.split()) or "no description"
    lines = [f"Category: {proposal.category}", f"Researcher: {proposal.researcher}"]
    if proposal.predicted_delta is not None:
        lines.append(f"Predicted-delta: {proposal.predicted_delta:+.6f}")
    if proposal.origin is not None:
        lines.append(f"Origin: {proposal.origin} on {' '.join(proposal.origin.device.split())}")
    return f"{subject}\n\n" + "\n".join(lines) + "\n"
